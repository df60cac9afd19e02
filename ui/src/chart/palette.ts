// Colours of frames. Hue says what kind of code it is, and a mark says it again for those who do not see the hue.

import type { Columns } from '../profile/profile'
import { isOfRuntime, KIND, moduleOf, nameOf } from '../profile/profile'
import { textHash } from '../profile/layout'

/** Kinds that look different. */
export const LOOK = { user: 0, kernel: 1, runtime: 2, cut: 3, frame: 4 } as const
export const LOOK_NAMES = ['program', 'kernel', 'runtime', 'stack cut', 'process or thread'] as const
const SHADES = 5
/** Steps of the scale of a comparison, from all gone to all new. */
const STEPS = 21

/** Hue, saturation and lightness of each look, for light and dark pages; chosen so that the ink has a contrast of 4.5. */
const TONES: readonly (readonly [hue: number, light: readonly [number, number], dark: readonly [number, number]])[] = [
  [34, [88, 72], [54, 33]],
  [212, [74, 79], [46, 35]],
  [285, [26, 81], [17, 36]],
  [0, [0, 74], [0, 40]],
  [215, [18, 88], [14, 26]],
]

export class Palette {
  /** CSS colours; `of` and `change` are indexes. */
  readonly colors: string[] = []
  readonly ink: string
  readonly mark: string
  private readonly steps: number
  private readonly modules = new Map<number, number>()

  constructor(readonly dark: boolean) {
    this.ink = dark ? '#fbf6ee' : '#1f160c'
    this.mark = dark ? 'rgb(255 255 255 / 45%)' : 'rgb(0 0 0 / 42%)'
    for (const [hue, light, night] of TONES) {
      const [saturation, lightness] = dark ? night : light
      for (let shade = 0; shade < SHADES; shade++) {
        const step = shade - (SHADES - 1) / 2
        this.colors.push(`hsl(${hue + step * 4} ${saturation}% ${lightness + step * (dark ? 1.6 : 2.6)}%)`)
      }
    }
    this.steps = this.colors.length
    for (let step = 0; step < STEPS; step++) this.colors.push(diverging((2 * step) / (STEPS - 1) - 1, dark))
  }

  /** The colour of a function. Modules of the program have shades of their own. */
  of(columns: Columns, fn: number): number {
    const look = lookOf(columns, fn)
    if (look === LOOK.frame || look === LOOK.cut) return look * SHADES + 2
    let module = this.modules.get(columns.module[fn]!)
    if (module === undefined) {
      module = textHash(moduleOf(columns, fn))
      this.modules.set(columns.module[fn]!, module)
    }
    return look * SHADES + (module + textHash(nameOf(columns, fn))) % SHADES
  }

  /** The colour of a change from -1 (all gone) to 1 (all new). */
  change(change: number): number {
    return this.steps + Math.round(((Math.max(-1, Math.min(1, change)) + 1) / 2) * (STEPS - 1))
  }

  /** Colours for a legend: of each look. */
  sample(look: number): string {
    return this.colors[look * SHADES + 2]!
  }
}

export function lookOf(columns: Columns, fn: number): number {
  switch (columns.kind[fn]) {
    case KIND.kernel: return LOOK.kernel
    case KIND.cut: return LOOK.cut
    case KIND.user: return isOfRuntime(columns, fn) ? LOOK.runtime : LOOK.user
    default: return LOOK.frame
  }
}

/** From blue over neutral to orange, which all kinds of colour vision tell apart. */
export function diverging(change: number, dark: boolean): string {
  const much = Math.abs(change) ** 0.8
  const hue = change < 0 ? 214 : 26
  if (dark) return `hsl(${hue} ${10 + much * 55}% ${28 + much * 8}%)`
  return `hsl(${hue} ${8 + much * 82}% ${91 - much * 24}%)`
}
