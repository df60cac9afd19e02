// Layout: where each node of a tree stands. Nodes are numbered level by level from left to right, so that what is in view
// of a level is found by halving, and children of a node follow each other.

import type { Raw } from './grow'

export interface Tree {
  /** Who called; the root is its own. */
  parent: Uint32Array
  fn: Uint32Array
  inlined: Uint8Array
  self: Float64Array
  total: Float64Array
  /** Of the profile to compare with. */
  otherSelf: Float64Array | null
  otherTotal: Float64Array | null
  /** Left edge and width; the root is from 0 to 1. */
  x: Float64Array
  width: Float64Array
  /** Children of a node are from `first[node]` up to `first[node + 1]`. */
  first: Uint32Array
  /** Nodes of a depth are from `level[depth]` up to `level[depth + 1]`. */
  level: Uint32Array
  /** A number that follows from the names on the path: the same in another tree of the same stacks. */
  path: Uint32Array
}

/** How wide a node is drawn by its weights: each times its factor. */
export interface Scale {
  own: number
  other: number
}

/** Lays a tree out, the widest children first. Nodes without weight are left out. `hash` has a number for each function. */
export function layout(raw: Raw, scale: Scale, hash: Uint32Array): Tree {
  const size = raw.parent.length
  const below = Float64Array.from(raw.own)
  const belowOther = raw.other ? Float64Array.from(raw.other) : null
  const children = new Uint32Array(size + 1)
  for (let node = size - 1; node > 0; node--) {
    const parent = raw.parent[node]!
    below[parent]! += below[node]!
    if (belowOther) belowOther[parent]! += belowOther[node]!
    if (below[node]! > 0 || (belowOther?.[node] ?? 0) > 0) children[parent + 1]!++
  }
  for (let node = 0; node < size; node++) children[node + 1]! += children[node]!
  const next = children.slice()
  const order = new Uint32Array(children[size]!)
  for (let node = 1; node < size; node++) {
    if (below[node]! > 0 || (belowOther?.[node] ?? 0) > 0) order[next[raw.parent[node]!]!++] = node
  }
  const wide = new Float64Array(size)
  for (let node = 0; node < size; node++) {
    wide[node] = below[node]! * scale.own + (belowOther ? belowOther[node]! * scale.other : 0)
  }
  const wider = (a: number, b: number) => wide[b]! - wide[a]! || hash[raw.fn[a]!]! - hash[raw.fn[b]!]! || a - b
  const count = order.length + 1
  const tree: Tree = {
    parent: new Uint32Array(count), fn: new Uint32Array(count), inlined: new Uint8Array(count),
    self: new Float64Array(count), total: new Float64Array(count),
    otherSelf: belowOther && new Float64Array(count), otherTotal: belowOther && new Float64Array(count),
    x: new Float64Array(count), width: new Float64Array(count),
    first: new Uint32Array(count + 1), level: new Uint32Array(0), path: new Uint32Array(count),
  }
  const whole = wide[0]! > 0 ? wide[0]! : 1
  const from = new Uint32Array(count)
  const levels = [0]
  let filled = 1
  for (let at = 0, last = 1; at < count; at++) {
    if (at === last) {
      levels.push(at)
      last = filled
    }
    const node = from[at]!
    const parent = tree.parent[at]!
    const fn = raw.fn[node]!
    tree.fn[at] = fn
    tree.inlined[at] = raw.inlined[node]!
    tree.self[at] = raw.own[node]!
    tree.total[at] = below[node]!
    if (belowOther) {
      tree.otherSelf![at] = raw.other![node]!
      tree.otherTotal![at] = belowOther[node]!
    }
    tree.width[at] = wide[node]! / whole
    tree.path[at] = at === 0 ? 0 : mix(tree.path[parent]!, hash[fn]!)
    const begin = children[node]!, end = children[node + 1]!
    sort(order, begin, end, wider)
    tree.first[at] = filled
    let x = tree.x[at]!
    for (let place = begin; place < end; place++) {
      const child = order[place]!
      from[filled] = child
      tree.parent[filled] = at
      tree.x[filled] = x
      x += wide[child]! / whole
      filled++
    }
  }
  tree.first[count] = filled
  tree.level = Uint32Array.from([...levels, count])
  return tree
}

/** So many children are quicker put in order in their place than by a sort that has to be called. */
const FEW = 24

/** Sorts the entries from `begin` up to `end`. */
function sort(list: Uint32Array, begin: number, end: number, compare: (a: number, b: number) => number): void {
  if (end - begin > FEW) {
    list.subarray(begin, end).sort(compare)
    return
  }
  for (let at = begin + 1; at < end; at++) {
    const entry = list[at]!
    let place = at
    while (place > begin && compare(list[place - 1]!, entry) > 0) {
      list[place] = list[place - 1]!
      place--
    }
    list[place] = entry
  }
}

/** A stable number for a text: that from `begin` up to `end` of another. */
export function textHash(text: string, begin = 0, end = text.length): number {
  let value = 0x811c9dc5
  const last = Math.min(end, begin + 512)
  for (let i = begin; i < last; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  return mix(value, end - begin)
}

function mix(one: number, other: number): number {
  let value = Math.imul(one ^ 0x9e3779b9, 0x85ebca6b) ^ other
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d)
  return (value ^ (value >>> 13)) >>> 0
}

/** How many levels there are. */
export function height(tree: Tree): number {
  return tree.level.length - 1
}

/** The level of a node. */
export function depthOf(tree: Tree, node: number): number {
  let low = 0, high = tree.level.length - 2
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (tree.level[middle]! <= node) low = middle
    else high = middle - 1
  }
  return low
}

/** What names a node in an address: its depth and the number of its path. */
export function pathId(tree: Tree, node: number): string {
  return node === 0 ? '' : `${depthOf(tree, node)}-${tree.path[node]!.toString(36)}`
}

/** The node of a path; the root where there is none. */
export function nodeOfPath(tree: Tree, id: string): number {
  const match = /^(\d{1,5})-([0-9a-z]{1,7})$/.exec(id)
  if (!match) return 0
  const depth = Number(match[1]), path = parseInt(match[2]!, 36)
  if (depth >= height(tree)) return 0
  for (let node = tree.level[depth]!; node < tree.level[depth + 1]!; node++) if (tree.path[node] === path) return node
  return 0
}

/** The functions from the first caller to a node. */
export function stackOf(tree: Tree, node: number): number[] {
  const stack = [tree.fn[node]!]
  for (let at = node; at > 0; at = tree.parent[at]!) stack.push(tree.fn[tree.parent[at]!]!)
  return stack.reverse()
}

/** The buffers that can be handed over rather than copied. */
export function buffers(tree: Tree): ArrayBuffer[] {
  const lists = [tree.parent, tree.fn, tree.inlined, tree.self, tree.total, tree.otherSelf, tree.otherTotal, tree.x,
    tree.width, tree.first, tree.level, tree.path]
  return lists.flatMap((list) => list ? [list.buffer as ArrayBuffer] : [])
}
