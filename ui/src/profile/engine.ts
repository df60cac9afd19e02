// The engine: what takes long with a large profile, as answers to requests. It runs in a worker; where there can be none, on
// the page itself.

import { changes, filtered, type Frames, inverted, type Raw, sandwich } from './grow'
import { layout, type Scale, textHash, type Tree } from './layout'
import { type Columns, functionCount } from './profile'
import { find } from './search'
import { ends, type Ends, type Selection } from './select'
import { totals, type Totals } from './totals'

export interface TreeRequest {
  selection: Selection
  frames: Frames
  invert: boolean
  scale: Scale
}

export interface SandwichRequest {
  selection: Selection
  fn: number
  scale: Scale
}

export class Engine {
  private hash: Uint32Array
  private last: { key: string, ends: Ends } | null = null

  constructor(private columns: Columns) {
    this.hash = new Uint32Array(functionCount(columns))
    const { name, strings: { all, ends } } = columns
    for (let fn = 0; fn < this.hash.length; fn++) {
      const at = name[fn]!
      this.hash[fn] = textHash(all, at > 0 ? ends[at - 1] : 0, ends[at])
    }
  }

  tree({ selection, frames, invert, scale }: TreeRequest): Tree {
    const sums = this.ends(selection)
    const { parent, fn, inlined } = this.columns
    let raw: Raw = changes(frames)
      ? filtered(this.columns, sums, frames)
      : { parent, fn, inlined, own: sums.own, other: sums.other }
    if (!sums.other) raw = { parent: raw.parent, fn: raw.fn, inlined: raw.inlined, own: raw.own, other: null }
    if (invert) raw = this.raw(inverted(raw, functionCount(this.columns)), sums)
    return layout(raw, scale, this.hash)
  }

  totals(selection: Selection): Totals {
    return totals(this.columns, this.ends(selection))
  }

  sandwich({ selection, fn, scale }: SandwichRequest): { callers: Tree, callees: Tree } {
    const sums = this.ends(selection)
    const both = sandwich(this.columns, sums, fn)
    return {
      callers: layout(this.raw(both.callers, sums), scale, this.hash),
      callees: layout(this.raw(both.callees, sums), scale, this.hash),
    }
  }

  find(text: string, longest?: number): Uint8Array {
    return find(this.columns, text, longest)
  }

  private raw(tree: Raw, sums: Ends): Raw {
    return { parent: tree.parent, fn: tree.fn, inlined: tree.inlined, own: tree.own, other: sums.other && tree.other }
  }

  private ends(selection: Selection): Ends {
    const key = JSON.stringify(selection)
    if (this.last?.key !== key) this.last = { key, ends: ends(this.columns, selection) }
    return this.last.ends
  }
}
