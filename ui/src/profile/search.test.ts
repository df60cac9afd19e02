import { describe, expect, it } from 'vitest'

import { Engine } from './engine'
import { ALL_FRAMES } from './grow'
import { decode, nameOf } from './profile'
import { flamegraph, type Stack, stacks } from './random.fixture'
import { escape, found, isRisky, nextHit, query } from './search'
import { EVERYTHING } from './select'

const request = { selection: EVERYTHING, frames: ALL_FRAMES, invert: false, scale: { own: 1, other: 0 } }

function search(list: Stack[], text: string) {
  const { columns } = decode(flamegraph(list))
  const engine = new Engine(columns)
  const hits = engine.find(text)
  const tree = engine.tree(request)
  const names = [...hits].flatMap((hit, fn) => hit ? [nameOf(columns, fn)] : [])
  return { hits, tree, names, ...found(tree, hits) }
}

describe('a search', () => {
  it.each([1, 2, 3, 4, 5])('counts each stack once (%i)', (seed) => {
    const list = stacks(seed)
    for (const text of ['f1', '^f[0-3]$', 'k', 'F0', 'nothing']) {
      const pattern = new RegExp(text, 'i')
      const expected = list.filter(({ names }) => names.some((name) => pattern.test(name)))
      expect(search(list, text).weight).toBe(expected.reduce((sum, stack) => sum + stack.weight, 0))
    }
  })

  it('takes what is no pattern as it stands, and says so', () => {
    const list: Stack[] = [{ names: ['p (pid 1)', 'operator('], thread: 0, bucket: 0, weight: 1, other: 0 }]
    expect(query('operator(').pattern).toBeNull()
    expect(query('operator(').problem).not.toBe('')
    expect(search(list, 'operator(').names).toEqual(['operator('])
    expect(query('f[0-9]').problem).toBe('')
  })

  it('finds just a text that is escaped', () => {
    for (const text of ['a.b*c', '<T as Iterator>::next', 'operator[](int)', 'a|b\\c', '{closure#0}', 'x/y']) {
      expect(query(`^${escape(text)}$`).pattern?.test(text)).toBe(true)
    }
  })

  it('goes from one find to the next, and around', () => {
    const { hits, tree } = search(stacks(2), 'f1')
    let at = 0
    const seen = new Set<number>()
    while (!seen.has(at = nextHit(tree, hits, at, 1))) seen.add(at)
    expect(seen.size).toBe(found(tree, hits).nodes)
    const one = [...seen][1]!
    expect(nextHit(tree, hits, nextHit(tree, hits, one, 1), -1)).toBe(one)
    expect(nextHit(tree, new Uint8Array(hits.length), 0, 1)).toBe(-1)
  })

  it('knows patterns that could take forever', () => {
    for (const text of ['(a+)+$', '(a|aa)+b', '((x*)y)*', '(.*)*', '(a{2,}){3,}', '(a)\\1', '.*.*.*.*.*.*.*x']) {
      expect(isRisky(text), text).toBe(true)
    }
    for (const text of ['foo', '^a.*b$', 'a|b', '(foo|bar)', 'Vec<.*>::push', '[(+*]+x', '\\(a+\\)+', '(?:get|set)_\\w+']) {
      expect(isRisky(text), text).toBe(false)
    }
  })
})
