// Which part of a tree is in view, and how it gets from one to another.

export interface View {
  /** Left edge and width; 0 and 1 show all. */
  left: number
  width: number
  /** How far it is scrolled, in pixels. */
  top: number
}

/** Nothing is shown larger than this part of all, so that numbers stay exact. */
export const NARROWEST = 1e-9
const TAKES_MS = 180

export class Viewport {
  now: View = { left: 0, width: 1, top: 0 }
  private from: View | null = null
  private to: View | null = null
  private began = 0
  private frame = 0

  constructor(private draw: () => void, private still = () => matchMedia('(prefers-reduced-motion: reduce)').matches) {}

  /** Where it is, or will be soon. */
  get goal(): View {
    return this.to ?? this.now
  }

  go(view: View, animated: boolean): void {
    const width = Math.min(1, Math.max(NARROWEST, view.width))
    const left = Math.min(1 - width, Math.max(0, view.left))
    const goal = { left, width, top: view.top }
    cancelAnimationFrame(this.frame)
    if (!animated || this.still()) {
      this.now = goal
      this.from = this.to = null
      this.frame = requestAnimationFrame(() => this.draw())
      return
    }
    this.from = { ...this.now }
    this.to = goal
    this.began = performance.now()
    this.frame = requestAnimationFrame(this.step)
  }

  /** Draws in the next frame, if nothing moves anyway. */
  redraw(): void {
    if (this.to) return
    cancelAnimationFrame(this.frame)
    this.frame = requestAnimationFrame(() => this.draw())
  }

  stop(): void {
    cancelAnimationFrame(this.frame)
  }

  private step = (): void => {
    const { from, to } = this
    if (!from || !to) return
    const part = Math.min(1, (performance.now() - this.began) / TAKES_MS)
    this.now = between(from, to, part < 1 ? 1 - (1 - part) ** 3 : 1)
    if (part < 1) this.frame = requestAnimationFrame(this.step)
    else this.from = this.to = null
    this.draw()
  }
}

/** A view on the way; widths shrink and grow by factors, so that zooming looks even. */
function between(from: View, to: View, part: number): View {
  if (part >= 1) return { ...to }
  const width = from.width * (to.width / from.width) ** part
  // The point that both views show at the same place stays where it is.
  const still = from.width === to.width
    ? part
    : (width - from.width) / (to.width - from.width)
  return { left: from.left + (to.left - from.left) * still, width, top: from.top + (to.top - from.top) * part }
}
