import { describe, expect, it } from 'vitest'

import { Damaged } from './damaged'
import { unpack } from './packed'
import { comparison, flamegraph, pack, stacks } from './random.fixture'
import { decode, decodeComparison, isOfRuntime, KIND, nameOf } from './profile'
import type { Comparison, Flamegraph } from './json'

const list = stacks(7)
const json = () => flamegraph(list)

describe('packed profiles', () => {
  it('are those of the JSON form', () => {
    const named = json()
    named.strings[3] = 'größe 🙂'
    named.strings[4] = '\ufeffbegins with a mark'
    const packed = decode(unpack(pack(named)) as Flamegraph)
    expect(packed).toEqual(decode(named))
    expect([...packed.columns.name].map((_, fn) => nameOf(packed.columns, fn))).toContain('größe 🙂')
  })

  it('hold comparisons', () => {
    const both = comparison(list)
    expect(decodeComparison(unpack(pack(both)) as Comparison)).toEqual(decodeComparison(both))
  })

  it('hold weights that need more than 32 bits', () => {
    const heavy = json()
    heavy.weights.weight[0] = 2 ** 40
    expect(decode(unpack(pack(heavy)) as Flamegraph).columns.weights.weight[0]).toBe(2 ** 40)
  })

  it('know functions of runtimes when they are asked', () => {
    const named = json()
    const [one = 0, other = 0] = named.functions.kind.flatMap((kind, fn) => kind === KIND.user ? [fn] : [])
    named.strings[named.functions.name[one]!] = '__libc_start_main'
    const { columns } = decode(unpack(pack(named)) as Flamegraph)
    expect([one, other, one].map((fn) => isOfRuntime(columns, fn))).toEqual([true, false, true])
  })

  it('are refused wherever they are cut off', () => {
    const whole = pack(json())
    for (let length = 0; length < whole.byteLength; length += length < 64 ? 1 : 613) {
      expect(() => decode(unpack(whole.slice(0, length)) as Flamegraph), `${length} bytes`).toThrow(/cut off|no packed|head|text/)
    }
  })

  it('are refused with a flipped byte, or are others', () => {
    const whole = pack(json())
    for (let at = 0; at < whole.byteLength; at += at < 2000 ? 23 : 997) {
      const flipped = whole.slice(0)
      new Uint8Array(flipped)[at]! ^= 0x55
      let problem: unknown
      try {
        decode(unpack(flipped) as Flamegraph)
      } catch (error) {
        problem = error
      }
      if (problem !== undefined) expect(problem, `byte ${at}`).toBeInstanceOf(Damaged)
    }
  })

  it.each<[string, (columns: { name: string, type: string, length: number }[]) => void, RegExp]>([
    ['a column longer than the rest', (columns) => { columns.at(-1)!.length = 1e9 }, /cut off within/],
    ['a negative length', (columns) => { columns[2]!.length = -1 }, /makes no sense/],
    ['a length with a fraction', (columns) => { columns[2]!.length = 1.5 }, /makes no sense/],
    ['a type that is none', (columns) => { columns[2]!.type = 'constructor' }, /makes no sense/],
    ['no name', (columns) => { delete (columns[2] as { name?: string }).name }, /makes no sense/],
    ['a name without a table', (columns) => { columns[2]!.name = 'length' }, /names a column length/],
    ['tables of prototypes', (columns) => { columns[2]!.name = '__proto__.name' }, /no column functions.name/],
    ['columns of different length', (columns) => { columns.at(-1)!.length -= 1 }, /has not \d+ entries/],
    ['no strings', (columns) => { columns.find(({ name }) => name === 'strings.ends')!.name = 'other.ends' }, /no strings/],
    ['a text that is not all there', (columns) => { columns.find(({ name }) => name === 'strings')!.length -= 1 }, /strings.ends/],
  ])('are refused with %s', (_, change, message) => {
    expect(() => decode(unpack(pack(json(), change)) as Flamegraph)).toThrow(message)
  })

  it.each<[string, (json: ReturnType<typeof flamegraph>) => void, RegExp]>([
    ['a node that is not there', (one) => { one.weights.node[0] = 1 << 20 }, /weights.node\[0\] is out of range/],
    ['a parent behind its child', (one) => { one.nodes.parent[1] = 5 }, /stands before its parent/],
    ['a kind that does not fit', (one) => { one.functions.kind[1] = 256 }, /functions.kind\[1\] is out of range/],
    ['a fraction where there is none', (one) => { one.nodes.function[1] = 2 ** 53 }, /nodes.function\[1\] is out of range/],
  ])('are refused with %s', (_, change, message) => {
    const wrong = json()
    change(wrong)
    expect(() => decode(unpack(pack(wrong)) as Flamegraph)).toThrow(message)
  })
})
