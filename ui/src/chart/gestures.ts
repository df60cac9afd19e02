// What a pointer does to a flamegraph: pointing, clicking, dragging, the wheel, and with fingers panning and pinching.

import type { Chart } from './chart'
import type { View } from './viewport'

/** Less than this is a click, in pixels. */
const STILL = 4
/** Fingers that are nearer do not zoom, in pixels. */
const NEAREST = 24

interface Finger {
  x: number
  y: number
}

export class Gestures {
  /** Where what is down is now; two of it at most are of interest. */
  private readonly down = new Map<number, Finger>()
  /** Where it was, and what was seen, when the present movement began. */
  private from: { x: number, y: number, apart: number, view: View } | null = null
  private moved = false
  /** Did a second finger touch since all were lifted? Then none of them clicks. */
  private pinched = false
  private readonly ended = new AbortController()

  constructor(private readonly chart: Chart, host: HTMLElement) {
    const { signal } = this.ended
    const { canvas } = chart
    const on = <K extends keyof HTMLElementEventMap>(
      target: HTMLElement, name: K, act: (event: HTMLElementEventMap[K]) => void, passive = true,
    ) => target.addEventListener(name, act, { signal, passive })
    on(canvas, 'pointerdown', (event) => this.press(event))
    on(canvas, 'pointermove', (event) => this.move(event))
    on(canvas, 'pointerup', (event) => this.lift(event))
    on(canvas, 'pointercancel', (event) => this.gone(event))
    on(canvas, 'pointerleave', (event) => { if (!this.down.size) chart.point(-1, event.clientX, event.clientY) })
    on(canvas, 'dblclick', () => chart.reset())
    on(canvas, 'wheel', (event) => this.wheel(event), false)
    on(canvas, 'touchmove', (event) => this.touch(event), false)
    on(host, 'focus', () => chart.redraw())
    on(host, 'blur', () => chart.redraw())
  }

  close(): void {
    this.ended.abort()
  }

  private press(event: PointerEvent): void {
    if (event.button !== 0) return
    if (!this.down.size) this.moved = this.pinched = false
    this.down.set(event.pointerId, { x: event.clientX, y: event.clientY })
    if (this.down.size > 1) {
      this.moved = this.pinched = true
      this.chart.point(-1, event.clientX, event.clientY)
    }
    this.begin()
  }

  private move(event: PointerEvent): void {
    const finger = this.down.get(event.pointerId)
    const { chart, from } = this
    if (!finger || !from) {
      if (event.pointerType !== 'touch') chart.point(chart.at(event.clientX, event.clientY), event.clientX, event.clientY)
      return
    }
    finger.x = event.clientX
    finger.y = event.clientY
    const { x, y, apart } = this.middle()
    if (!this.moved && Math.hypot(x - from.x, y - from.y) > STILL) {
      this.moved = true
      chart.canvas.setPointerCapture(event.pointerId)
      chart.point(-1, x, y)
    }
    if (!this.moved) return
    if (event.pointerType !== 'touch') chart.canvas.style.cursor = 'grabbing'
    const box = chart.canvas.getBoundingClientRect()
    const width = Math.min(1, from.view.width * (from.apart > NEAREST && apart > NEAREST ? from.apart / apart : 1))
    // What was in the middle of the fingers stays there.
    const held = from.view.left + ((from.x - box.left) / Math.max(1, box.width)) * from.view.width
    const left = held - ((x - box.left) / Math.max(1, box.width)) * width
    chart.look({ ...chart.scrolled(from.view, from.y - y), left, width })
  }

  private lift(event: PointerEvent): void {
    const { chart } = this
    if (!this.down.delete(event.pointerId)) return
    chart.canvas.style.cursor = 'default'
    if (this.down.size) {
      this.begin()
      return
    }
    this.from = null
    if (this.moved || this.pinched) return
    const node = chart.at(event.clientX, event.clientY)
    if (node < 0) return
    if (event.pointerType === 'touch') chart.point(node, event.clientX, event.clientY)
    chart.choose(node)
  }

  private gone(event: PointerEvent): void {
    this.down.delete(event.pointerId)
    if (this.down.size) this.begin()
    else this.from = null
  }

  /** A movement begins with what is down now. */
  private begin(): void {
    this.from = { ...this.middle(), view: { ...this.chart.goal } }
  }

  private middle(): { x: number, y: number, apart: number } {
    const [one, other] = [...this.down.values()]
    if (!one) return { x: 0, y: 0, apart: 0 }
    if (!other) return { ...one, apart: 0 }
    return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, apart: Math.abs(one.x - other.x) }
  }

  /** The browser scrolls the page by one finger, but where the chart has more to show that way, or two fingers are down. */
  private touch(event: TouchEvent): void {
    if (!event.cancelable) return
    const [finger] = event.touches
    const { from } = this
    if (event.touches.length > 1 || this.pinched) event.preventDefault()
    else if (from && finger && this.chart.canScroll(Math.sign(from.y - finger.clientY))) event.preventDefault()
  }

  /** With Ctrl, Alt or Meta (and by pinching) the wheel zooms, else it scrolls; at the ends the page does. */
  private wheel(event: WheelEvent): void {
    const { chart } = this
    const box = chart.canvas.getBoundingClientRect()
    const unit = event.deltaMode === 1 ? 20 : event.deltaMode === 2 ? box.height : 1
    const { goal } = chart
    if (event.ctrlKey || event.metaKey || event.altKey) {
      event.preventDefault()
      const at = (event.clientX - box.left) / Math.max(1, box.width)
      const width = Math.min(1, goal.width * Math.exp(event.deltaY * unit * 0.0035))
      chart.look({ ...goal, left: goal.left + (goal.width - width) * at, width })
      return
    }
    const sideways = event.shiftKey ? event.deltaY : event.deltaX
    if (Math.abs(sideways) > (event.shiftKey ? 0 : Math.abs(event.deltaY))) {
      if (goal.width >= 1) return
      event.preventDefault()
      chart.look({ ...goal, left: goal.left + ((sideways * unit) / Math.max(1, box.width)) * goal.width })
      return
    }
    if (!chart.canScroll(event.deltaY * unit)) return
    event.preventDefault()
    chart.look(chart.scrolled(goal, event.deltaY * unit))
  }
}
