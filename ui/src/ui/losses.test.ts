import { expect, test } from 'vitest'

import { byKind, kindOf } from './losses'

test('lost means lost', () => {
  expect(kindOf('ring buffer full')).toBe('lost')
  expect(kindOf('samples dropped: memory bound')).toBe('lost')
  expect(kindOf('samples with unnamed frames: no symbols')).toBe('unnamed')
  expect(kindOf('stacks truncated: no frame pointer')).toBe('cut')
  expect(kindOf('stacks with frames guessed by frame pointer')).toBe('guessed')
  expect(kindOf('stacks with frames derived from code')).toBe('derived')
  expect(kindOf('window `dump` could not be read')).toBe('other')
})

test('what is lost comes first, each kind with its reasons', () => {
  const losses = byKind([['samples with unnamed frames: x', 200], ['stacks truncated: y', 80], ['ring buffer full', 2], ['z dropped', 0]])
  expect(losses.map(({ kind, count }) => [kind, count])).toEqual([['lost', 2], ['cut', 80], ['unnamed', 200]])
})
