// The tree that is shown, in formats that other tools open: speedscope's and pprof's. `folded.ts` has the third.

import type { Tree } from './layout'
import { fileOf, nameOf, type Profile } from './profile'

/** What weights are, as pprof and speedscope call it. */
const UNITS = {
  samples: ['samples', 'count', 'none'], microseconds: ['wait', 'microseconds', 'microseconds'], bytes: ['space', 'bytes', 'bytes'],
} as const

/** Calls `take` for each node where stacks end, with the functions from there to the first caller, and the weight. */
function eachStack(tree: Tree, take: (stack: number[], weight: number) => void): void {
  for (let node = 1; node < tree.fn.length; node++) {
    const weight = Math.round(tree.self[node]!)
    if (weight <= 0) continue
    const stack: number[] = []
    for (let at = node; at > 0; at = tree.parent[at]!) stack.push(tree.fn[at]!)
    take(stack, weight)
  }
}

/** A document of https://www.speedscope.app/file-format-schema.json. */
export function speedscope({ title, unit, columns }: Profile, tree: Tree): string {
  const frames: { name: string, file?: string, line?: number }[] = []
  const known = new Map<number, number>()
  const frameOf = (fn: number) => {
    let frame = known.get(fn)
    if (frame === undefined) {
      frame = frames.length
      known.set(fn, frame)
      const file = fileOf(columns, fn), line = columns.line[fn]!
      frames.push({ name: nameOf(columns, fn), ...(file && { file }), ...(line > 0 && { line }) })
    }
    return frame
  }
  const samples: number[][] = [], weights: number[] = []
  eachStack(tree, (stack, weight) => {
    samples.push(stack.map(frameOf).reverse())
    weights.push(weight)
  })
  const endValue = weights.reduce((sum, weight) => sum + weight, 0)
  return JSON.stringify({
    $schema: 'https://www.speedscope.app/file-format-schema.json',
    shared: { frames },
    profiles: [{ type: 'sampled', name: title, unit: UNITS[unit][2], startValue: 0, endValue, samples, weights }],
    exporter: 'probe',
  })
}

/** A message of protocol buffers. */
class Message {
  private readonly bytes: number[] = []

  private varint(value: number): void {
    while (value >= 128) {
      this.bytes.push((value % 128) + 128)
      value = Math.floor(value / 128)
    }
    this.bytes.push(value)
  }

  number(field: number, value: number): this {
    if (value > 0) {
      this.varint(field * 8)
      this.varint(value)
    }
    return this
  }

  part(field: number, part: Uint8Array | Message): this {
    const bytes = part instanceof Message ? part.bytes : part
    this.varint(field * 8 + 2)
    this.varint(bytes.length)
    for (const byte of bytes) this.bytes.push(byte)
    return this
  }

  numbers(field: number, values: number[]): this {
    const packed = new Message()
    for (const value of values) packed.varint(value)
    return this.part(field, packed)
  }

  done(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.bytes)
  }
}

/** A profile of https://github.com/google/pprof/blob/main/proto/profile.proto, not compressed yet. */
export function pprof({ unit, durationMs, startedMs, columns }: Profile, tree: Tree): Uint8Array<ArrayBuffer> {
  const texts = new Map([['', 0]])
  const text = (value: string) => {
    const at = texts.get(value) ?? texts.size
    texts.set(value, at)
    return at
  }
  const profile = new Message()
  profile.part(1, new Message().number(1, text(UNITS[unit][0])).number(2, text(UNITS[unit][1])))
  const known = new Set<number>()
  eachStack(tree, (stack, weight) => {
    // Ids begin at 1.
    profile.part(2, new Message().numbers(1, stack.map((fn) => fn + 1)).numbers(2, [weight]))
    stack.forEach((fn) => known.add(fn))
  })
  for (const fn of known) {
    const line = columns.line[fn]!
    profile.part(4, new Message().number(1, fn + 1).part(4, new Message().number(1, fn + 1).number(2, line)))
    const name = text(nameOf(columns, fn))
    profile.part(5, new Message().number(1, fn + 1).number(2, name).number(3, name).number(4, text(fileOf(columns, fn))))
  }
  const encoder = new TextEncoder()
  for (const value of texts.keys()) profile.part(6, encoder.encode(value))
  return profile.number(9, startedMs * 1e6).number(10, Math.round(durationMs * 1e6)).done()
}
