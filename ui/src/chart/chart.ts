// A flamegraph on a canvas: what is seen, pointed at, zoomed into and moved through with keys. It knows no framework; the
// page around it listens.

import { depthOf, height, type Tree } from '../profile/layout'
import type { Columns } from '../profile/profile'
import { nameOf } from '../profile/profile'
import { Gestures } from './gestures'
import { Labels } from './labels'
import { lookOf, Palette } from './palette'
import { depthAt, nodeAt, paint, ROW, rowTop, type Scene } from './paint'
import { type View, Viewport } from './viewport'

/** A tree with what is needed to draw it. */
export interface Picture {
  tree: Tree
  columns: Columns
  /** From -1 to 1 for each node, in comparisons. */
  change: Float32Array | null
}

export interface ChartEvents {
  /** The pointer is on a node, or on none (-1). */
  hover(node: number, x: number, y: number): void
  /** A node was clicked, or chosen by Enter. */
  choose(node: number): void
  /** Keys moved to a node. */
  focus(node: number): void
  /** Everything was asked for. */
  reset(): void
  /** The picture is drawn. */
  painted?(): void
}

/** A colour that was not needed yet; palettes are much smaller. */
const UNKNOWN = 255

export class Chart {
  readonly canvas = document.createElement('canvas')
  picture: Picture | null = null
  hover = -1
  focus = -1
  /** Frames and merged runs in the last painting, and how long it took in milliseconds. */
  drawn = 0
  paintedIn = 0
  private hits: Uint8Array | null = null
  private flame = false
  private pen: CanvasRenderingContext2D
  private viewport = new Viewport(() => this.paint())
  private width = 0
  private height = 0
  private palette = new Palette(false)
  /** By function: its colour, once it was needed. */
  private colors = new Uint8Array(0)
  private labels: Labels | null = null
  private style = { font: '', ground: '', merged: '', hit: '', hitInk: '', culprit: '', accent: '' }
  /** The function that stands out; -1 for none. */
  private marked = -1
  private gestures: Gestures
  private observer: ResizeObserver

  constructor(private host: HTMLElement, private events: ChartEvents) {
    const pen = this.canvas.getContext('2d', { alpha: false })
    if (!pen) throw new Error('this browser has no canvas')
    this.pen = pen
    this.canvas.setAttribute('aria-hidden', 'true')
    Object.assign(this.canvas.style, { display: 'block', width: '100%', height: '100%', touchAction: 'pan-y', userSelect: 'none' })
    host.append(this.canvas)
    this.restyle()
    this.gestures = new Gestures(this, host)
    this.observer = new ResizeObserver(() => this.resize())
    this.observer.observe(host)
    this.resize()
  }

  close(): void {
    this.gestures.close()
    this.observer.disconnect()
    this.viewport.stop()
    this.canvas.remove()
  }

  /** Takes colours and fonts of the page. */
  restyle(): void {
    const style = getComputedStyle(this.host)
    const value = (name: string, other: string) => style.getPropertyValue(name).trim() || other
    const ground = value('--surface', value('--chart', '#fff'))
    const dark = isDark(ground)
    this.palette = new Palette(dark)
    this.style = {
      font: `12px ${value('--mono', 'monospace')}`, ground, merged: dark ? '#5a5148' : '#dcb583',
      hit: dark ? '#d863ee' : '#9a1fa6', hitInk: dark ? '#1d0422' : '#ffffff', culprit: value('--bad-strong', dark ? '#f0645b' : '#c5302a'), accent: value('--text', value('--ink', dark ? '#fff' : '#000')),
    }
    if (this.picture) this.colour(this.picture)
    this.viewport.redraw()
  }

  get isDark(): boolean {
    return this.palette.dark
  }

  /** Colour of a look, for legends. */
  sample(look: number): string {
    return this.palette.sample(look)
  }

  /** Shows a tree, all of it. */
  show(picture: Picture): void {
    const known = this.picture?.columns === picture.columns
    this.picture = picture
    this.hover = this.focus = -1
    if (!known) this.colour(picture)
    this.canvas.dataset['nodes'] = String(picture.tree.fn.length)
    this.viewport.go({ left: 0, width: 1, top: 0 }, false)
  }

  setHits(hits: Uint8Array | null): void {
    this.hits = hits
    this.viewport.redraw()
  }

  setFlame(flame: boolean): void {
    this.flame = flame
    this.viewport.go({ ...this.viewport.goal, top: 0 }, false)
  }

  /** Marks the frames of a function. */
  setMarked(fn: number): void {
    this.marked = fn
    this.viewport.redraw()
  }

  /** Scrolls to the widest frame of a function, if it is not in the part of the chart that the window shows. */
  aim(fn: number): void {
    const tree = this.picture?.tree
    if (!tree) return
    let best = -1
    for (let node = 0; node < tree.fn.length; node++) {
      if (tree.fn[node] === fn && (best < 0 || tree.width[node]! > tree.width[best]!)) best = node
    }
    if (best < 0) return
    const box = this.canvas.getBoundingClientRect()
    const seen = Math.min(this.height, window.innerHeight - box.top)
    const row = depthOf(tree, best) * ROW
    if (row + 2 * ROW <= (seen > 4 * ROW ? seen : this.height)) return
    const middle = Math.max(ROW, (seen > 4 * ROW ? seen : this.height) / 2 - ROW)
    this.viewport.go({ ...this.viewport.goal, top: this.clampTop(row - middle) }, false)
  }

  /** Shows a node over the whole width. */
  zoom(node: number, animated = true): void {
    const tree = this.picture?.tree
    if (!tree) return
    this.viewport.go({ left: tree.x[node]!, width: tree.width[node]!, top: this.topFor(node) }, animated)
  }

  /** Brings a node into view without zooming out. */
  reveal(node: number): void {
    const tree = this.picture?.tree
    if (!tree) return
    const goal = this.viewport.goal
    let { left, width } = goal
    const x = tree.x[node]!, wide = tree.width[node]!
    if (wide < width / 400) width = Math.min(1, wide * 20)
    if (x < left || x + wide > left + width) {
      if (wide > width) width = wide
      left = x + wide / 2 - width / 2
    }
    const top = this.topFor(node)
    if (left !== goal.left || width !== goal.width || top !== goal.top) this.viewport.go({ left, width, top }, true)
    else this.viewport.redraw()
  }

  setFocus(node: number, reveal = true): void {
    this.focus = node
    if (node >= 0 && reveal) this.reveal(node)
    else this.viewport.redraw()
  }

  /** Moves and zooms the view by parts of itself. */
  move(right: number, factor: number, center = 0.5): void {
    const { left, width, top } = this.viewport.goal
    const wide = Math.min(1, width * factor)
    this.viewport.go({ left: left + width * right + (width - wide) * center, width: wide, top }, true)
  }

  scroll(by: number): void {
    const goal = this.viewport.goal
    this.viewport.go({ ...goal, top: this.clampTop(goal.top + (this.flame ? -by : by)) }, true)
  }

  /** Where a node is drawn, in the window; `null` where it is not in view. */
  place(node: number): { x: number, y: number, width: number, height: number } | null {
    const tree = this.picture?.tree
    if (!tree) return null
    const { left, width } = this.viewport.now
    const scale = this.width / width
    const from = Math.max(0, (tree.x[node]! - left) * scale)
    const to = Math.min(this.width, (tree.x[node]! + tree.width[node]! - left) * scale)
    const top = rowTop(this.frame(), depthOf(tree, node))
    if (to <= from || top < 0 || top + ROW > this.height + 1) return null
    const box = this.canvas.getBoundingClientRect()
    return { x: box.left + from, y: box.top + top, width: to - from, height: ROW }
  }

  /** The keys that need nothing of the page; true if this was one. */
  key(event: KeyboardEvent): boolean {
    if (!this.picture) return false
    const large = event.shiftKey ? 2 : 1
    switch (event.key) {
      case 'ArrowUp': return this.step(this.flame ? 'child' : 'parent')
      case 'ArrowDown': return this.step(this.flame ? 'parent' : 'child')
      case 'ArrowLeft': return this.step('left')
      case 'ArrowRight': return this.step('right')
      case 'Enter': return this.focus < 0 || (this.events.choose(this.focus), true)
      case '+': case '=': return this.move(0, 0.5), true
      case '-': case '_': return this.move(0, 2), true
      case 'a': case 'A': return this.move(-0.2 * large, 1), true
      case 'd': case 'D': return this.move(0.2 * large, 1), true
      case 'w': case 'W': return this.scroll(-4 * ROW * large), true
      case 's': case 'S': return this.scroll(4 * ROW * large), true
      default: return false
    }
  }

  private step(where: 'parent' | 'child' | 'left' | 'right'): boolean {
    const { tree } = this.picture!
    let node = this.focus
    if (node < 0) node = 0
    else if (where === 'parent') node = tree.parent[node]!
    else if (where === 'child') {
      if (tree.first[node]! < tree.first[node + 1]!) node = tree.first[node]!
    } else {
      const depth = depthOf(tree, node)
      const next = node + (where === 'left' ? -1 : 1)
      if (next >= tree.level[depth]! && next < tree.level[depth + 1]!) node = next
    }
    this.setFocus(node)
    this.events.focus(node)
    return true
  }

  private colour({ columns }: Picture): void {
    this.colors = new Uint8Array(columns.name.length).fill(UNKNOWN)
    this.labels = new Labels(this.pen, (fn) => nameOf(columns, fn), this.style.font)
  }

  private frame(): { flame: boolean, height: number, view: View } {
    return { flame: this.flame, height: this.height, view: this.viewport.now }
  }

  private topFor(node: number): number {
    const { tree } = this.picture!
    const top = this.viewport.goal.top
    const row = depthOf(tree, node) * ROW
    // The frame, what called it and some of what it called.
    if (row - ROW < top) return this.clampTop(row - ROW)
    if (row + 3 * ROW > top + this.height) return this.clampTop(row + 3 * ROW - this.height)
    return this.clampTop(top)
  }

  private clampTop(top: number): number {
    const most = this.picture ? height(this.picture.tree) * ROW + 4 - this.height : 0
    return Math.max(0, Math.min(most, top))
  }

  private resize(): void {
    const ratio = window.devicePixelRatio || 1
    this.width = this.host.clientWidth
    this.height = this.host.clientHeight
    const wide = Math.max(1, Math.round(this.width * ratio)), high = Math.max(1, Math.round(this.height * ratio))
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      this.canvas.width = wide
      this.canvas.height = high
    }
    this.paint()
  }

  private paint(): void {
    const { picture, pen, palette, style } = this
    pen.setTransform(this.canvas.width / Math.max(1, this.width), 0, 0, this.canvas.height / Math.max(1, this.height), 0, 0)
    if (!picture || !this.labels) {
      pen.fillStyle = style.ground
      pen.fillRect(0, 0, this.width, this.height)
      return
    }
    const began = performance.now()
    const { tree, change, columns } = picture
    const { colors } = this
    const colorOf = (fn: number) => {
      if (colors[fn] === UNKNOWN) colors[fn] = palette.of(columns, fn)
      return colors[fn]!
    }
    const scene: Scene = {
      tree, view: this.viewport.now, width: this.width, height: this.height, flame: this.flame,
      colorOf: change ? (node) => palette.change(change[node]!) : (node) => colorOf(tree.fn[node]!),
      lookOf: (fn) => lookOf(columns, fn),
      signOf: change ? (node) => change[node]! > 0.08 ? '▲' : change[node]! < -0.08 ? '▼' : '' : null,
      colors: palette.colors, ink: palette.ink, mark: palette.mark, ...style,
      marked: this.marked, hits: this.hits, hover: this.hover, focus: this.focus, showsFocus: document.activeElement === this.host, labels: this.labels,
    }
    this.drawn = paint(pen, scene)
    this.paintedIn = performance.now() - began
    this.events.painted?.()
  }

  /** The node at a place of the window; -1 for none. */
  at(x: number, y: number): number {
    if (!this.picture) return -1
    const box = this.canvas.getBoundingClientRect()
    const { left, width } = this.viewport.now
    return nodeAt(this.picture.tree, depthAt(this.frame(), y - box.top), left + ((x - box.left) / Math.max(1, this.width)) * width)
  }

  /** The pointer is on a node, or on none (-1). */
  point(node: number, x: number, y: number): void {
    this.events.hover(node, x, y)
    this.canvas.style.cursor = node >= 0 ? 'pointer' : 'default'
    if (this.hover === node) return
    this.hover = node
    this.viewport.redraw()
  }

  /** A node was clicked or tapped. */
  choose(node: number): void {
    this.focus = node
    this.events.choose(node)
  }

  reset(): void {
    this.events.reset()
  }

  redraw(): void {
    this.viewport.redraw()
  }

  /** The part that is in view, or will be soon. */
  get goal(): View {
    return this.viewport.goal
  }

  /** Shows a part at once; `top` as far as there is something. */
  look(view: View): void {
    this.viewport.go({ ...view, top: this.clampTop(view.top) }, false)
  }

  /** Can it be moved that many pixels down (up, if negative), so that other levels are seen? */
  canScroll(down: number): boolean {
    const { top } = this.viewport.goal
    return this.clampTop(top + (this.flame ? -down : down)) !== top
  }

  /** The part that `view` is after it was moved that many pixels down. */
  scrolled(view: View, down: number): View {
    return { ...view, top: this.clampTop(view.top + (this.flame ? -down : down)) }
  }
}

/** Is a CSS colour of the form #rgb, #rrggbb or rgb(…) a dark one? */
export function isDark(color: string): boolean {
  let parts = /^#(.)(.)(.)$/.exec(color)?.slice(1).map((digit) => parseInt(digit + digit, 16))
  parts ??= /^#(..)(..)(..)/.exec(color)?.slice(1).map((digits) => parseInt(digits, 16))
  parts ??= color.match(/[\d.]+/g)?.slice(0, 3).map(Number)
  if (!parts || parts.length < 3) return false
  return 0.299 * parts[0]! + 0.587 * parts[1]! + 0.114 * parts[2]! < 128
}
