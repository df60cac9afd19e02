// What the page and the worker say to each other.

import type { SandwichRequest, TreeRequest } from '../profile/engine'
import type { Columns } from '../profile/profile'
import type { Selection } from '../profile/select'

/** What an answer of the API holds: a profile, or two compared. */
export type Form = 'one' | 'two'

export type Task =
  /** Answered with the profile. */
  | { kind: 'read', bytes: ArrayBuffer, form: Form }
  /** The columns of a profile that was read already. */
  | { kind: 'load', columns: Columns }
  | { kind: 'tree', request: TreeRequest }
  | { kind: 'totals', selection: Selection }
  | { kind: 'sandwich', request: SandwichRequest }
  | { kind: 'find', text: string }

export interface Reply {
  id: number
  value?: unknown
  problem?: string
}
