// `probe view FILE` has one profile to show: it is fetched and laid out while the page around it is built.

import { api, getBytes } from '../api/client'
import { mode } from '../ui/live'
import { open, type Opened } from './client'

/** The address is also that which the server has the browser load ahead (`FIRST_VIEW` in `serve/app.rs`). */
const isPlain = mode === 'profile' && location.pathname === '/view' && location.search === ''
let begun = isPlain ? open(getBytes(api(['view', 'profile'], { format: 'packed' })), 'one', true) : null
// Whoever takes it is told.
begun?.catch(() => undefined)

/** The profile that was begun; `null` where there is none, or it was taken. */
export function takeBegun(): Promise<Opened> | null {
  const taken = begun
  begun = null
  return taken
}
