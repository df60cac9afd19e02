// Names from targets are text that nobody trusts: what cannot be seen is written out, and what is long is cut.

import { cut } from '@/profile/names'

/** The longest name that a page lays out; styles cut what does not fit, and titles show the rest. */
const LONGEST = 300

export function shown(name: string): string {
  return cut(name, LONGEST)
}

/** For titles, which may be longer. */
export function whole(name: string): string {
  return cut(name, 2000)
}
