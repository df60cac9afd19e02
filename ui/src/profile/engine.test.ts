import { describe, expect, it } from 'vitest'

import { Engine } from './engine'
import { folded } from './folded'
import { ALL_FRAMES } from './grow'
import { depthOf, height, nodeOfPath, pathId, stackOf, type Tree } from './layout'
import { decode, decodeComparison, nameOf, type Profile } from './profile'
import { comparison, flamegraph, type Stack, stacks } from './random.fixture'
import { EVERYTHING, type Selection } from './select'

const ONE = { own: 1, other: 0 }
const SEEDS = [1, 2, 3, 5, 8, 13, 21, 34]

function engine(list: Stack[]): { profile: Profile, engine: Engine, name: (fn: number) => string } {
  const profile = decode(flamegraph(list))
  return { profile, engine: new Engine(profile.columns), name: (fn) => nameOf(profile.columns, fn) }
}

function tree(list: Stack[], change: Partial<Parameters<Engine['tree']>[0]> = {}): { tree: Tree, name: (fn: number) => string } {
  const made = engine(list)
  const request = { selection: EVERYTHING, frames: ALL_FRAMES, invert: false, scale: ONE, ...change }
  return { tree: made.engine.tree(request), name: made.name }
}

/** What folded output has to be: the slow way. */
function slow(list: Stack[], change: (names: string[]) => string[] = (names) => names): string[] {
  const sums = new Map<string, number>()
  for (const { names, weight } of list) {
    const key = change(names).join(';')
    sums.set(key, (sums.get(key) ?? 0) + weight)
  }
  return [...sums].map(([key, weight]) => `${key} ${weight}`).sort()
}

const lines = (text: string) => text.trim().split('\n').sort()

/** What holds of every layout. One expectation for all of it: thousands would take seconds. */
function checkLayout(tree: Tree): void {
  const wrong: string[] = []
  const check = (holds: boolean, what: string) => { if (!holds) wrong.push(what) }
  const count = tree.fn.length
  const depth = new Int32Array(count)
  for (let node = 1; node < count; node++) depth[node] = depth[tree.parent[node]!]! + 1
  check(tree.level[tree.level.length - 1] === count, 'the levels have not every node')
  for (let node = 0; node < count; node++) {
    let children = 0, right = tree.x[node]!
    check(depthOf(tree, node) === depth[node], `node ${node} is in another level`)
    for (let child = tree.first[node]!; child < tree.first[node + 1]!; child++) {
      check(tree.parent[child] === node, `node ${child} has another parent`)
      check(Math.abs(tree.x[child]! - right) < 1e-9, `node ${child} does not begin where its neighbour ends`)
      if (child > tree.first[node]!) check(tree.width[child]! <= tree.width[child - 1]!, `node ${child} is wider than the one before`)
      right = tree.x[child]! + tree.width[child]!
      children += tree.total[child]!
    }
    check(right <= tree.x[node]! + tree.width[node]! + 1e-9, `the children of ${node} are wider than it`)
    check(Math.abs(children + tree.self[node]! - tree.total[node]!) < 1e-6, `the weights of ${node} do not add up`)
  }
  for (let level = 0; level < height(tree); level++) {
    for (let node = tree.level[level]! + 1; node < tree.level[level + 1]!; node++) {
      check(tree.x[node]! >= tree.x[node - 1]!, `level ${level} is in no order`)
    }
  }
  expect(wrong).toEqual([])
}

describe('trees', () => {
  it.each(SEEDS)('have every weight once, parents around their children, levels in order (%i)', (seed) => {
    const list = stacks(seed)
    const { tree: whole, name } = tree(list)
    checkLayout(whole)
    expect(whole.total[0]).toBe(list.reduce((sum, stack) => sum + stack.weight, 0))
    expect(lines(folded(whole, name))).toEqual(slow(list))
  })

  it.each(SEEDS)('of callers have the same weight, by the function that ran (%i)', (seed) => {
    const list = stacks(seed)
    const { tree: callers, name } = tree(list, { invert: true })
    checkLayout(callers)
    const top = new Map<string, number>()
    for (let node = callers.level[1]!; node < callers.level[2]!; node++) {
      top.set(name(callers.fn[node]!), callers.total[node]!)
    }
    const expected = new Map<string, number>()
    for (const { names, weight } of list) expected.set(names.at(-1)!, (expected.get(names.at(-1)!) ?? 0) + weight)
    expect(top).toEqual(new Map([...expected].sort((a, b) => b[1] - a[1] || [...top.keys()].indexOf(a[0]) - [...top.keys()].indexOf(b[0]))))
    expect(lines(folded(callers, name))).toEqual(slow(list, (names) => [...names].reverse()))
  })

  it.each(SEEDS)('without the kernel end in what called it (%i)', (seed) => {
    const list = stacks(seed)
    const { tree: user, name } = tree(list, { frames: { ...ALL_FRAMES, nokernel: true } })
    checkLayout(user)
    expect(lines(folded(user, name))).toEqual(slow(list, (names) => names.filter((one) => !one.startsWith('k'))))
  })

  it.each(SEEDS)('without recursion have each function once on a path (%i)', (seed) => {
    const list = stacks(seed)
    const { tree: flat, name } = tree(list, { frames: { ...ALL_FRAMES, collapse: true } })
    checkLayout(flat)
    for (let node = 0; node < flat.fn.length; node++) {
      const stack = stackOf(flat, node)
      expect(new Set(stack).size).toBe(stack.length)
    }
    const collapse = (names: string[]) => {
      const kept: string[] = []
      for (const one of names) {
        const at = kept.indexOf(one)
        if (at >= 0) kept.length = at + 1
        else kept.push(one)
      }
      return kept
    }
    expect(lines(folded(flat, name))).toEqual(slow(list, collapse))
  })

  it.each(SEEDS)('of threads and of stretches of time have what belongs there (%i)', (seed) => {
    const list = stacks(seed)
    const threads: Selection = { threads: [0, 2], states: null, time: null }
    const some = tree(list, { selection: threads })
    expect(lines(folded(some.tree, some.name))).toEqual(slow(list.filter((stack) => stack.thread !== 1)))
    const time: Selection = { threads: [1], states: null, time: { from: 500, to: 1250 } }
    const part = tree(list, { selection: time })
    const within = list.filter(({ thread, bucket }) => thread === 1 && bucket >= 10 && bucket < 25)
    expect(lines(folded(part.tree, part.name))).toEqual(slow(within))
  })

  it('without any weight have just their root', () => {
    const { tree: empty } = tree(stacks(3), { selection: { threads: [], states: null, time: null } })
    expect(empty.fn.length).toBe(1)
    expect(empty.total[0]).toBe(0)
    expect(height(empty)).toBe(1)
  })

  it('merge the frames of a runtime that follow each other, and lose no weight', () => {
    const names = ['p (pid 1)', '_start', '__libc_start_main', 'f1', 'PyObject_Call', '_PyEval_EvalFrameDefault', 'f2']
    const { tree: merged, name } = tree([{ names, thread: 0, bucket: 0, weight: 4, other: 0 }], {
      frames: { ...ALL_FRAMES, noruntime: true },
    })
    expect(folded(merged, name)).toBe('p (pid 1);[runtime];f1;[runtime];f2 4\n')
  })

  it('are as deep as stacks of ten thousand frames', () => {
    const names = ['p (pid 1)', ...Array.from({ length: 10000 }, (_, at) => `g${at % 50}`)]
    const { tree: deep } = tree([{ names, thread: 0, bucket: 0, weight: 1, other: 0 }])
    expect(height(deep)).toBe(10002)
    const made = engine([{ names, thread: 0, bucket: 0, weight: 1, other: 0 }])
    expect(made.engine.totals(EVERYTHING).total[2]).toBe(1)
  })

  it.each(SEEDS)('find a node again by its path, in another tree too (%i)', (seed) => {
    const list = stacks(seed)
    const { tree: whole, name } = tree(list)
    const half = tree(list.slice(0, 200))
    for (let node = 0; node < whole.fn.length; node += 7) {
      expect(nodeOfPath(whole, pathId(whole, node))).toBe(node)
      const there = nodeOfPath(half.tree, pathId(whole, node))
      if (there > 0) expect(stackOf(half.tree, there).map(half.name)).toEqual(stackOf(whole, node).map(name))
    }
    for (const id of ['', 'x', '1-', '99999-1', '2-zzzzzzz', '../..']) expect(nodeOfPath(whole, id)).toBe(0)
  })
})

describe('totals', () => {
  it.each(SEEDS)('count recursion once for each stack (%i)', (seed) => {
    const list = stacks(seed)
    const { engine: made, profile, name } = engine(list)
    const { self, total, all } = made.totals(EVERYTHING)
    expect(all).toBe(list.reduce((sum, stack) => sum + stack.weight, 0))
    for (let fn = 1; fn < profile.columns.name.length; fn++) {
      const own = list.filter(({ names }) => names.at(-1) === name(fn))
      const with_ = list.filter(({ names }) => names.includes(name(fn)))
      expect(self[fn]).toBe(own.reduce((sum, stack) => sum + stack.weight, 0))
      expect(total[fn]).toBe(with_.reduce((sum, stack) => sum + stack.weight, 0))
    }
  })
})

describe('a sandwich', () => {
  it.each(SEEDS)('has all that is above and below each function (%i)', (seed) => {
    const list = stacks(seed)
    const { engine: made, profile, name } = engine(list)
    const { total } = made.totals(EVERYTHING)
    for (let fn = 1; fn < profile.columns.name.length; fn++) {
      const { callers, callees } = made.sandwich({ selection: EVERYTHING, fn, scale: ONE })
      checkLayout(callers)
      checkLayout(callees)
      expect(callers.total[0]).toBeCloseTo(total[fn]!, 9)
      expect(callees.total[0]).toBeCloseTo(total[fn]!, 9)
      const with_ = list.filter(({ names }) => names.includes(name(fn)))
      const below = slow(with_, (names) => names.slice(names.indexOf(name(fn)) + 1)).filter((line) => !line.startsWith(' '))
      expect(lines(folded(callees, name)).filter((line) => line !== '')).toEqual(below)
      const above = slow(with_, (names) => names.slice(0, names.indexOf(name(fn))).reverse()).filter((line) => !line.startsWith(' '))
      expect(lines(folded(callers, name)).filter((line) => line !== '')).toEqual(above)
    }
  })
})

describe('comparisons', () => {
  it.each(SEEDS)('keep both weights apart, through every transformation (%i)', (seed) => {
    const list = stacks(seed)
    const { columns } = decodeComparison(comparison(list))
    const made = new Engine(columns)
    const own = list.reduce((sum, stack) => sum + stack.weight, 0)
    const other = list.reduce((sum, stack) => sum + stack.other, 0)
    for (const invert of [false, true]) {
      for (const frames of [ALL_FRAMES, { collapse: true, nokernel: true, noruntime: true }]) {
        const tree = made.tree({ selection: EVERYTHING, frames, invert, scale: { own: 1 / own, other: 1 / other } })
        checkLayout(tree)
        expect(tree.total[0]).toBe(own)
        expect(tree.otherTotal![0]).toBe(other)
        expect(tree.width[0]).toBeCloseTo(1, 9)
      }
    }
    const { otherTotal, otherAll } = made.totals(EVERYTHING)
    expect(otherAll).toBe(other)
    for (let fn = 1; fn < columns.name.length; fn++) {
      const with_ = list.filter(({ names }) => names.includes(nameOf(columns, fn)))
      expect(otherTotal![fn]).toBe(with_.reduce((sum, stack) => sum + stack.other, 0))
    }
  })

  it('show what is gone as well', () => {
    const gone: Stack = { names: ['p (pid 1)', 'gone'], thread: 0, bucket: 0, weight: 0, other: 5 }
    const { columns } = decodeComparison(comparison([gone, { ...gone, names: ['p (pid 1)', 'new'], weight: 5, other: 0 }]))
    const tree = new Engine(columns).tree({ selection: EVERYTHING, frames: ALL_FRAMES, invert: false, scale: { own: 0.1, other: 0.1 } })
    const shown = [...tree.fn].map((fn) => nameOf(columns, fn))
    expect(shown).toEqual(expect.arrayContaining(['gone', 'new']))
    expect(tree.width[shown.indexOf('gone')]).toBeCloseTo(0.5, 9)
  })
})

describe('what does not hold together', () => {
  const good = () => flamegraph(stacks(1, 5))
  it.each([
    ['a parent behind its child', (json: ReturnType<typeof good>) => { json.nodes.parent[1] = 3 }],
    ['a function that is not there', (json: ReturnType<typeof good>) => { json.nodes.function[1] = 9999 }],
    ['a name that is not there', (json: ReturnType<typeof good>) => { json.functions.name[1] = 9999 }],
    ['columns of different length', (json: ReturnType<typeof good>) => { json.weights.weight.pop() }],
    ['a negative weight', (json: ReturnType<typeof good>) => { json.weights.weight[0] = -1 }],
    ['a node that is not there', (json: ReturnType<typeof good>) => { json.weights.node[0] = 1 << 20 }],
    ['no root', (json: ReturnType<typeof good>) => { json.nodes = { parent: [], function: [], inlined: [] } }],
  ])('is refused: %s', (_, damage) => {
    const json = good()
    damage(json)
    expect(() => decode(json)).toThrow(/root|range|entries|parent/)
  })
})
