// Painting: the frames of a tree that are in view, whatever the size of the tree. What is narrower than a pixel is merged
// with its neighbours; each level costs a step for each pixel at most.

import type { Tree } from '../profile/layout'
import { height } from '../profile/layout'
import type { Labels } from './labels'
import { LOOK } from './palette'
import type { View } from './viewport'

export const ROW = 20

export interface Scene {
  tree: Tree
  view: View
  /** In pixels. */
  width: number
  height: number
  /** The root is at the bottom. */
  flame: boolean
  /** Colour of a node, as an index into `colors`. */
  colorOf: (node: number) => number
  lookOf: (fn: number) => number
  /** A sign in front of a node's name, for what its colour says. */
  signOf: ((node: number) => string) | null
  colors: string[]
  ink: string
  mark: string
  merged: string
  ground: string
  hit: string
  hitInk: string
  accent: string
  /** The function that stands out; -1 for none. */
  marked: number
  culprit: string
  hits: Uint8Array | null
  hover: number
  focus: number
  showsFocus: boolean
  labels: Labels
  font: string
}

/** Top of a level, in pixels of the view. */
export function rowTop({ flame, height: whole, view }: Pick<Scene, 'flame' | 'height' | 'view'>, depth: number): number {
  return flame ? whole - (depth + 1) * ROW + view.top : depth * ROW - view.top
}

/** The level at a height of the view; may be outside of the tree. */
export function depthAt({ flame, height: whole, view }: Pick<Scene, 'flame' | 'height' | 'view'>, y: number): number {
  return Math.floor(flame ? (whole - y + view.top) / ROW : (y + view.top) / ROW)
}

/** The first node from `low` up to `high` whose right edge is beyond `x`. */
export function firstBeyond(tree: Tree, low: number, high: number, x: number): number {
  while (low < high) {
    const middle = (low + high) >> 1
    if (tree.x[middle]! + tree.width[middle]! > x) high = middle
    else low = middle + 1
  }
  return low
}

/** The node at a place of the tree, or -1. */
export function nodeAt(tree: Tree, depth: number, x: number): number {
  if (depth < 0 || depth >= height(tree)) return -1
  const end = tree.level[depth + 1]!
  const node = firstBeyond(tree, tree.level[depth]!, end, x)
  return node < end && tree.x[node]! <= x ? node : -1
}

const rects: number[][] = []
const MERGED = 0.9

/** Paints; returns how many frames and runs of merged ones there were. */
export function paint(pen: CanvasRenderingContext2D, scene: Scene): number {
  const { tree, view, width, hits } = scene
  const scale = width / view.width
  const right = view.left + view.width
  while (rects.length < scene.colors.length * 2 + 2) rects.push([])
  for (const list of rects) list.length = 0
  const mergedAt = scene.colors.length * 2, hitAt = mergedAt + 1
  const labels: number[] = []
  const marked: number[] = []
  const marks: number[] = []
  let drawn = 0
  const one = depthAt(scene, 0), other = depthAt(scene, scene.height)
  const last = Math.min(height(tree) - 1, Math.max(one, other))
  for (let depth = Math.max(0, Math.min(one, other)); depth <= last; depth++) {
    const y = rowTop(scene, depth)
    const end = tree.level[depth + 1]!
    let node = firstBeyond(tree, tree.level[depth]!, end, view.left)
    while (node < end && tree.x[node]! < right) {
      const x = (tree.x[node]! - view.left) * scale
      const wide = tree.width[node]! * scale
      if (wide < MERGED) {
        // Pixel by pixel until something is wide enough again, or there is a gap.
        const from = Math.floor(x)
        let to = from + 1
        let found = hits ? hits[tree.fn[node]!]! : 0
        let next = firstBeyond(tree, node + 1, end, view.left + to / scale)
        while (next < end && to < width) {
          const at = (tree.x[next]! - view.left) * scale
          if (at > to + 0.5 || tree.width[next]! * scale >= MERGED) break
          if (hits?.[tree.fn[next]!]) found = 1
          to++
          next = firstBeyond(tree, next + 1, end, view.left + to / scale)
        }
        rects[found ? hitAt : mergedAt]!.push(from, y, Math.max(1, to - from))
        drawn++
        node = next
        continue
      }
      const shown = Math.max(0, x)
      const until = Math.min(width, x + wide)
      const hit = hits?.[tree.fn[node]!]
      const color = scene.colorOf(node)
      const gap = wide > 3 ? 1 : 0
      const list = hit ? hitAt : hits ? color + scene.colors.length : color
      rects[list]!.push(shown, y, Math.max(0.7, until - shown - gap))
      drawn++
      if (tree.fn[node] === scene.marked) marked.push(shown, y, until - shown - gap)
      if (wide > 5) marks.push(node, shown, y, until - shown - gap)
      if (until - shown > 22) labels.push(node, shown, y, until - shown - 8)
      node++
    }
  }
  pen.fillStyle = scene.ground
  pen.fillRect(0, 0, width, scene.height)
  for (let list = 0; list < rects.length; list++) {
    const rect = rects[list]!
    if (!rect.length) continue
    const faded = list >= scene.colors.length && list < mergedAt
    pen.globalAlpha = faded ? 0.32 : hits && list === mergedAt ? 0.4 : 1
    pen.fillStyle = list === hitAt ? scene.hit : list === mergedAt ? scene.merged : scene.colors[list % scene.colors.length]!
    for (let at = 0; at < rect.length; at += 3) pen.fillRect(rect[at]!, rect[at + 1]!, rect[at + 2]!, ROW - 1)
  }
  pen.globalAlpha = 1
  paintMarks(pen, scene, marks)
  paintLabels(pen, scene, labels)
  pen.strokeStyle = scene.culprit
  pen.lineWidth = 2
  for (let at = 0; at < marked.length; at += 3) pen.strokeRect(marked[at]! + 1, marked[at + 1]! + 1, Math.max(1, marked[at + 2]! - 2), ROW - 3)
  if (scene.hover >= 0) outline(pen, scene, scene.hover, 1.5)
  if (scene.showsFocus && scene.focus >= 0) outline(pen, scene, scene.focus, 2.5)
  return drawn
}

/** The kernel has a bar below, inlined functions dashes, runtimes dots, cut stacks stripes. */
function paintMarks(pen: CanvasRenderingContext2D, { tree, lookOf, mark }: Scene, list: number[]): void {
  pen.fillStyle = mark
  for (let at = 0; at < list.length; at += 4) {
    const node = list[at]!, x = list[at + 1]!, y = list[at + 2]!, width = list[at + 3]!
    const look = lookOf(tree.fn[node]!)
    if (tree.inlined[node]) {
      const dash = Math.max(6, width / 150)
      for (let from = 0; from < width; from += dash * 1.6) pen.fillRect(x + from, y + ROW - 3, Math.min(dash, width - from), 2)
    } else if (look === LOOK.kernel) pen.fillRect(x, y + ROW - 4, width, 3)
    else if (look === LOOK.runtime) {
      const step = Math.max(6, width / 150)
      for (let from = 2; from < width - 1; from += step) pen.fillRect(x + from, y + ROW - 4, 2, 2)
    } else if (look === LOOK.cut) {
      const step = Math.max(8, width / 100)
      for (let from = 0; from < width; from += step) pen.fillRect(x + from, y, Math.min(2, width - from), ROW - 1)
    }
  }
}

function paintLabels(pen: CanvasRenderingContext2D, scene: Scene, list: number[]): void {
  pen.font = scene.font
  pen.textBaseline = 'middle'
  for (const hit of [0, 1]) {
    pen.fillStyle = hit ? scene.hitInk : scene.ink
    for (let at = 0; at < list.length; at += 4) {
      const node = list[at]!
      const fn = scene.tree.fn[node]!
      if ((scene.hits?.[fn] ? 1 : 0) !== hit) continue
      const sign = (fn === scene.marked ? '◆' : '') + (scene.signOf ? scene.signOf(node) : '')
      const indent = 12 * sign.length
      const room = list[at + 3]! - indent
      const text = scene.labels.fit(fn, room)
      if (sign && list[at + 3]! > indent) pen.fillText(sign, list[at + 1]! + 4, list[at + 2]! + ROW / 2)
      if (text) pen.fillText(text, list[at + 1]! + 4 + indent, list[at + 2]! + ROW / 2 - 0.5)
    }
  }
}

function outline(pen: CanvasRenderingContext2D, scene: Scene, node: number, thick: number): void {
  const { tree, view, width } = scene
  const scale = width / view.width
  let low = 0, high = tree.level.length - 2
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (tree.level[middle]! <= node) low = middle
    else high = middle - 1
  }
  const x = (tree.x[node]! - view.left) * scale
  const from = Math.max(-4, x), to = Math.min(width + 4, x + tree.width[node]! * scale)
  if (to < from) return
  pen.strokeStyle = scene.accent
  pen.lineWidth = thick
  pen.strokeRect(from + thick / 2, rowTop(scene, low) + thick / 2 - 0.5, Math.max(1, to - from - thick - 1), ROW - thick)
}
