// The engine on the page itself, for where no worker can be made.

import { Engine, type SandwichRequest, type TreeRequest } from '../profile/engine'
import { read } from '../profile/profile'
import { isRisky } from '../profile/search'
import type { Selection } from '../profile/select'
import { type Backend, type Opened, TooSlow } from './client'
import type { Form } from './protocol'

/** How much of a name is searched where nothing can end a search. */
const LONGEST = 500

export function openHere(bytes: ArrayBuffer, form: Form): Opened {
  const profile = read(bytes, form)
  return { profile, backend: new Local(new Engine(profile.columns)) }
}

class Local implements Backend {
  constructor(private engine: Engine) {}

  tree = (request: TreeRequest) => Promise.resolve(this.engine.tree(request))
  totals = (selection: Selection) => Promise.resolve(this.engine.totals(selection))
  sandwich = (request: SandwichRequest) => Promise.resolve(this.engine.sandwich(request))

  find(text: string): Promise<Uint8Array> {
    return new Promise((done) => done(this.search(text)))
  }

  close(): void {
    // There is nothing to end.
  }

  private search(text: string): Uint8Array {
    // Nothing could end it here, so that what might take forever is not begun.
    if (isRisky(text)) throw new TooSlow('the pattern could take forever')
    return this.engine.find(text, LONGEST)
  }
}
