import { expect, test } from 'vitest'

import { Engine } from './engine'
import { ALL_FRAMES } from './grow'
import { decode, nameOf } from './profile'
import { flamegraph, stacks } from './random.fixture'
import { EVERYTHING } from './select'
import { pprof, speedscope } from './shown'

const profile = decode(flamegraph(stacks(11)))
const tree = new Engine(profile.columns).tree({ selection: EVERYTHING, frames: ALL_FRAMES, invert: false, scale: { own: 1, other: 0 } })
const all = tree.self.reduce((sum, weight) => sum + weight, 0)
const names = [...new Set(Array.from(tree.fn.slice(1), (fn) => nameOf(profile.columns, fn)))].sort()

test('speedscope has every frame and all of the weight', () => {
  const made = JSON.parse(speedscope(profile, tree)) as { shared: { frames: { name: string }[] }, profiles: { samples: number[][], weights: number[], endValue: number }[] }
  const [one] = made.profiles
  expect([...new Set(made.shared.frames.map(({ name }) => name))].sort()).toEqual(names)
  expect(one?.endValue).toBe(all)
  expect(one?.samples.length).toBe(one?.weights.length)
  expect(one?.samples.every((stack) => stack.every((frame) => frame < made.shared.frames.length))).toBe(true)
})

/** Fields of a message: numbers and bytes by the number of the field. */
function fields(bytes: Uint8Array): [number, number | Uint8Array][] {
  const list: [number, number | Uint8Array][] = []
  let at = 0
  const varint = () => {
    let value = 0, factor = 1, byte
    do {
      byte = bytes[at++] ?? 0
      value += (byte & 127) * factor
      factor *= 128
    } while (byte & 128)
    return value
  }
  while (at < bytes.length) {
    const tag = varint()
    if (tag % 8 === 0) list.push([tag >> 3, varint()])
    else {
      const length = varint()
      list.push([tag >> 3, bytes.slice(at, at += length)])
    }
  }
  return list
}

test('pprof has every function, and all of the weight', () => {
  const parts = fields(pprof(profile, tree))
  const of = (field: number) => parts.filter(([one]) => one === field).map(([, part]) => part as Uint8Array)
  const texts = of(6).map((bytes) => new TextDecoder().decode(bytes))
  expect(texts[0]).toBe('')
  const functions = of(5).map((bytes) => new Map(fields(bytes)))
  expect([...new Set(functions.map((one) => texts[one.get(2) as number]))].sort()).toEqual(names)
  const ids = new Set(functions.map((one) => one.get(1)))
  const locations = of(4).map((bytes) => new Map(fields(bytes)))
  expect(locations.every((one) => ids.has(one.get(1)) && new Map(fields(one.get(4) as Uint8Array)).get(1) === one.get(1))).toBe(true)
  const weights = of(2).map((bytes) => new Map(fields(bytes)).get(2) as Uint8Array)
  const sum = weights.map((packed) => fields(Uint8Array.of(8, ...packed))[0]?.[1] as number).reduce((total, weight) => total + weight, 0)
  expect(sum).toBe(all)
})
