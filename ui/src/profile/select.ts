// Which weights count: those of the chosen threads, states and stretch of time, added up by the node where they end.

import type { Columns, Weights } from './profile'

export interface Selection {
  /** Indexes of threads; `null` for all. */
  threads: number[] | null
  /** Indexes of states; `null` for all. */
  states: number[] | null
  /** Milliseconds from the start, `to` not included; `null` for all of the time. */
  time: { from: number, to: number } | null
}

export const EVERYTHING: Selection = { threads: null, states: null, time: null }

/** Weights by node; `other` of the profile to compare with. */
export interface Ends {
  own: Float64Array
  other: Float64Array | null
}

export function ends(columns: Columns, selection: Selection): Ends {
  const nodes = columns.parent.length
  const { time } = selection
  const timed = time && columns.times
  const weights = timed ? timed.weights : columns.weights
  const own = new Float64Array(nodes)
  const other = weights.other ? new Float64Array(nodes) : null
  const bucketMs = timed ? timed.bucketMs : 1
  const first = time ? Math.floor(time.from / bucketMs + 1e-6) : 0
  const last = time ? Math.ceil(time.to / bucketMs - 1e-6) : 0
  each(weights, selection, (at) => {
    if (timed) {
      const bucket = timed.bucket[at]!
      if (bucket < first || bucket >= last) return
    }
    const node = weights.node[at]!
    own[node]! += weights.weight[at]!
    if (other) other[node]! += weights.other![at]!
  })
  return { own, other }
}

/** Calls `visit` for each row of the chosen threads and states. */
export function each(weights: Weights, selection: Selection, visit: (at: number) => void): void {
  const threads = selection.threads && new Set(selection.threads)
  const states = selection.states && new Set(selection.states)
  for (let at = 0; at < weights.node.length; at++) {
    if (threads && !threads.has(weights.thread[at]!)) continue
    if (states && !states.has(weights.state[at]!)) continue
    visit(at)
  }
}
