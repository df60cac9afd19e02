// Trees while they grow: a list of nodes that can be found by their parent and function.

import { type Columns, isOfRuntime } from './profile'
import type { Ends } from './select'
import { outermostNodes } from './totals'

/** A tree without an order; a parent stands before its children, node 0 is the root. */
export class Growing {
  parent: number[] = [0]
  fn: number[]
  inlined: number[]
  own: number[] = [0]
  other: number[] = [0]
  private index = new Map<number, number>()

  constructor(root: number, private functions: number, inlined = 0) {
    this.fn = [root]
    this.inlined = [inlined]
  }

  /** The child of `parent` that is `fn`; made where there is none. */
  child(parent: number, fn: number, inlined: number): number {
    const key = parent * this.functions + fn
    let node = this.index.get(key)
    if (node === undefined) {
      node = this.parent.length
      this.index.set(key, node)
      this.parent.push(parent)
      this.fn.push(fn)
      this.inlined.push(inlined)
      this.own.push(0)
      this.other.push(0)
    }
    return node
  }

  add(node: number, own: number, other: number): void {
    this.own[node]! += own
    this.other[node]! += other
  }
}

/** What of the frames is shown. */
export interface Frames {
  /** A function that is on the stack already is the frame that is there. */
  collapse: boolean
  nokernel: boolean
  /** Frames of a runtime that follow each other are one. */
  noruntime: boolean
}

export const ALL_FRAMES: Frames = { collapse: false, nokernel: false, noruntime: false }

export function changes(frames: Frames): boolean {
  return frames.collapse || frames.nokernel || frames.noruntime
}

const KERNEL = 1

/** The tree with the frames that are wanted; what ends in others ends in their callers. */
export function filtered(columns: Columns, ends: Ends, frames: Frames): Growing {
  const { parent, fn, inlined, kind, merged } = columns
  const tree = new Growing(fn[0]!, columns.name.length)
  const place = new Int32Array(parent.length)
  for (let node = 1; node < parent.length; node++) {
    const above = place[parent[node]!]!
    let function_ = fn[node]!
    if (frames.nokernel && kind[function_] === KERNEL) {
      place[node] = above
      continue
    }
    if (frames.noruntime && isOfRuntime(columns, function_)) {
      function_ = merged[function_]!
      if (tree.fn[above] === function_) {
        place[node] = above
        continue
      }
    }
    if (frames.collapse) {
      let at = above
      while (at > 0 && tree.fn[at] !== function_) at = tree.parent[at]!
      if (at > 0) {
        place[node] = at
        continue
      }
    }
    place[node] = tree.child(above, function_, inlined[node]!)
  }
  for (let node = 0; node < parent.length; node++) tree.add(place[node]!, ends.own[node]!, ends.other?.[node] ?? 0)
  return tree
}

/** The shape that all trees have before they are laid out. */
export interface Raw {
  parent: ArrayLike<number>
  fn: ArrayLike<number>
  inlined: ArrayLike<number>
  own: ArrayLike<number>
  other: ArrayLike<number> | null
}

/** The tree from the functions that ran to their callers, merged. */
export function inverted(tree: Raw, functions: number): Growing {
  const starts: number[] = []
  for (let node = 1; node < tree.parent.length; node++) {
    if (tree.own[node]! > 0 || (tree.other?.[node] ?? 0) > 0) starts.push(node)
  }
  const all = new Growing(tree.fn[0]!, functions)
  all.add(0, tree.own[0]!, tree.other?.[0] ?? 0)
  const own = starts.map((node) => tree.own[node]!)
  climb(tree, all, starts, own, starts.map((node) => tree.other?.[node] ?? 0))
  return all
}

/** What is lighter than this part of all is not followed further up. */
const LEAST = 1 / 20000

/** Follows callers up from `nodes`, all at once, level by level. */
function climb(tree: Raw, into: Growing, nodes: number[], own: number[], other: number[]): void {
  const add = (list: number[]) => list.reduce((sum, weight) => sum + weight, 0)
  const least = add(own) * LEAST, leastOther = add(other) * LEAST
  let active = nodes.map((_, at) => at)
  const at = nodes.slice()
  const place = new Int32Array(nodes.length)
  const weight = new Map<number, [number, number]>()
  while (active.length) {
    weight.clear()
    for (const i of active) {
      place[i] = into.child(place[i]!, tree.fn[at[i]!]!, tree.inlined[at[i]!]!)
      const sums = weight.get(place[i])
      if (sums) {
        sums[0] += own[i]!
        sums[1] += other[i]!
      } else weight.set(place[i], [own[i]!, other[i]!])
    }
    active = active.filter((i) => {
      const [here, there] = weight.get(place[i]!)!
      at[i] = tree.parent[at[i]!]!
      const goesOn = at[i] > 0 && (here >= least && here > 0 || there >= leastOther && there > 0)
      if (!goesOn) into.add(place[i]!, own[i]!, other[i]!)
      return goesOn
    })
  }
}

/** Who called `fn`, and what it called, each merged over all the places where it is. */
export function sandwich(columns: Columns, ends: Ends, fn: number): { callers: Growing, callees: Growing } {
  const { parent, inlined } = columns
  const count = parent.length
  const below = Float64Array.from(ends.own)
  const belowOther = ends.other ? Float64Array.from(ends.other) : new Float64Array(count)
  for (let node = count - 1; node > 0; node--) {
    below[parent[node]!]! += below[node]!
    belowOther[parent[node]!]! += belowOther[node]!
  }
  const outermost = outermostNodes(columns)
  const callees = new Growing(fn, columns.name.length)
  const callers = new Growing(fn, columns.name.length)
  // The node of `callees` that each stands for; -1 outside.
  const place = new Int32Array(count).fill(-1)
  const starts: number[] = []
  for (let node = 0; node < count; node++) {
    const above = node > 0 ? place[parent[node]!]! : -1
    if (above >= 0) place[node] = callees.child(above, columns.fn[node]!, inlined[node]!)
    else if (columns.fn[node] === fn && outermost[node]) {
      place[node] = 0
      if (node > 0) starts.push(node)
    }
    if (place[node]! >= 0) callees.add(place[node]!, ends.own[node]!, ends.other?.[node] ?? 0)
  }
  const raw: Raw = { parent, fn: columns.fn, inlined, own: ends.own, other: ends.other }
  const of = (list: Float64Array) => starts.map((node) => list[node]!)
  const begin = starts.map((node) => parent[node]!)
  // A start below the root itself has no caller.
  const own = of(below), other = of(belowOther)
  const kept = begin.map((_, at) => at).filter((at) => {
    if (begin[at]! > 0) return true
    callers.add(0, own[at]!, other[at]!)
    return false
  })
  const pick = (list: number[]) => kept.map((at) => list[at]!)
  climb(raw, callers, pick(begin), pick(own), pick(other))
  return { callers, callees }
}
