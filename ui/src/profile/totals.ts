// What each function weighs: itself, and with what it called. A function that calls itself counts once for each stack.

import type { Columns } from './profile'
import { functionCount } from './profile'
import type { Ends } from './select'

/** Weights by function. */
export interface Totals {
  self: Float64Array
  total: Float64Array
  /** Of the profile to compare with. */
  otherSelf: Float64Array | null
  otherTotal: Float64Array | null
  all: number
  otherAll: number
}

export function totals(columns: Columns, { own, other }: Ends): Totals {
  const count = functionCount(columns)
  const [self, total] = sums(columns, own, count)
  const others = other ? sums(columns, other, count) : null
  const add = (list: Float64Array) => list.reduce((sum, weight) => sum + weight, 0)
  return {
    self, total, otherSelf: others?.[0] ?? null, otherTotal: others?.[1] ?? null,
    all: add(own), otherAll: other ? add(other) : 0,
  }
}

function sums(columns: Columns, ends: Float64Array, functions: number): [Float64Array, Float64Array] {
  const { parent, fn } = columns
  const nodes = parent.length
  const below = Float64Array.from(ends)
  for (let node = nodes - 1; node > 0; node--) below[parent[node]!]! += below[node]!
  const self = new Float64Array(functions)
  const total = new Float64Array(functions)
  const outermost = outermostNodes(columns)
  for (let node = 0; node < nodes; node++) {
    self[fn[node]!]! += ends[node]!
    if (outermost[node]) total[fn[node]!]! += below[node]!
  }
  return [self, total]
}

const known = new WeakMap<Columns, Uint8Array>()

/** 1 for nodes that have no caller of the same function. */
export function outermostNodes(columns: Columns): Uint8Array {
  const before = known.get(columns)
  if (before) return before
  const { parent, fn } = columns
  const nodes = parent.length
  const child = new Int32Array(nodes).fill(-1)
  const sibling = new Int32Array(nodes).fill(-1)
  for (let node = nodes - 1; node > 0; node--) {
    sibling[node] = child[parent[node]!]!
    child[parent[node]!] = node
  }
  const outermost = new Uint8Array(nodes)
  const open = new Uint32Array(functionCount(columns))
  // Depth first, without recursion: stacks may be thousands of frames deep.
  for (let node = 0; node >= 0;) {
    if (open[fn[node]!]!++ === 0) outermost[node] = 1
    if (child[node]! >= 0) {
      node = child[node]!
      continue
    }
    while (node > 0 && sibling[node]! < 0) {
      open[fn[node]!]!--
      node = parent[node]!
    }
    if (node === 0) break
    open[fn[node]!]!--
    node = sibling[node]!
  }
  known.set(columns, outermost)
  return outermost
}
