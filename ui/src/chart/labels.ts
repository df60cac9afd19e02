// Labels of frames: as much of a name as fits, measured once for each font.

import { cut, tail } from '../profile/names'

/** Names longer than this are not drawn whole anywhere. */
const LONGEST = 400

export class Labels {
  private letter = 0
  private names = new Map<number, { whole: string, short: string, plain: boolean }>()
  private fitted = new Map<number, string>()

  constructor(private pen: CanvasRenderingContext2D, private name: (fn: number) => string, font: string) {
    pen.font = font
    this.letter = pen.measureText('MMMMMMMMMM').width / 10
  }

  /** What of the name of `fn` fits into `width` pixels; the font of the pen is the one of the constructor. */
  fit(fn: number, width: number): string {
    const letters = Math.floor(width / this.letter)
    if (letters < 2) return ''
    const key = fn * 512 + Math.min(letters, 511)
    let label = this.fitted.get(key)
    if (label === undefined) {
      if (this.fitted.size > 50000) this.fitted.clear()
      label = this.make(fn, letters, width)
      this.fitted.set(key, label)
    }
    return label
  }

  private make(fn: number, letters: number, width: number): string {
    let name = this.names.get(fn)
    if (!name) {
      const whole = cut(this.name(fn), LONGEST)
      const short = cut(tail(this.name(fn)), LONGEST)
      name = { whole, short, plain: /^[\x20-\x7e…]*$/.test(whole) }
      this.names.set(fn, name)
    }
    const text = name.whole.length > letters && name.short.length < name.whole.length ? name.short : name.whole
    if (name.plain) return text.length <= letters ? text : `${text.slice(0, letters - 1)}…`
    if (text.length <= letters && this.pen.measureText(text).width <= width) return text
    const signs = Array.from(text).slice(0, letters)
    while (signs.length > 1 && this.pen.measureText(`${signs.join('')}…`).width > width) signs.pop()
    return signs.length > 1 ? `${signs.join('')}…` : ''
  }
}
