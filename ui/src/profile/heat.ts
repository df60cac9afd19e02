// The heat of a profile: how much there was in each stretch of time. Seconds stand side by side, the stretches of a second
// one above the other.

import type { Columns } from './profile'
import { each, type Selection } from './select'

export interface Heat {
  bucketMs: number
  /** Rows: stretches in a second. */
  rows: number
  /** Columns: seconds. */
  columns: number
  /** Weight by column × rows + row. */
  weight: Float64Array
  most: number
  /** How many stretches there are: the last second may be short. */
  buckets: number
}

export function heat(columns: Columns, selection: Selection, durationMs: number): Heat | null {
  const { times } = columns
  if (!times) return null
  const rows = Math.max(1, Math.round(1000 / times.bucketMs))
  let last = Math.ceil(durationMs / times.bucketMs)
  for (const bucket of times.bucket) if (bucket >= last) last = bucket + 1
  last = Math.min(Math.max(last, 1), 1e6)
  const seconds = Math.ceil(last / rows)
  const weight = new Float64Array(seconds * rows)
  let most = 0
  each(times.weights, { ...selection, time: null }, (at) => {
    const bucket = times.bucket[at]!
    if (bucket >= last) return
    weight[bucket]! += times.weights.weight[at]!
    most = Math.max(most, weight[bucket]!)
  })
  return { bucketMs: times.bucketMs, rows, columns: seconds, weight, most, buckets: last }
}
