import { expect, test } from 'vitest'

import { formatAgo, formatSpan, formatValue, unitOf } from './values'

test('values have the unit of their metric', () => {
  expect(formatValue(97.53, unitOf('cpu'))).toBe('97.5 %')
  expect(formatValue(52953088, unitOf('function.p99'))).toBe('53 ms')
  expect(formatValue(138996620.8, unitOf('memory.growth'))).toBe('132.6 MiB/min')
  expect(formatValue(1536, unitOf('io.write'))).toBe('1.5 KiB/s')
  expect(formatValue(12, unitOf('threads'))).toBe('12')
  expect(formatValue(2628.7, unitOf('function.rate'))).toBe('2,628.7/s')
  expect(formatValue(null, 'bytes')).toBe('–')
})

test('spans are rough', () => {
  expect([3, 65, 3700, 90000].map(formatSpan)).toEqual(['3 s', '1 min', '1 h 1 min', '1 d 1 h'])
  expect(formatAgo(1000, 3000)).toBe('just now')
  expect(formatAgo(0, 120_000)).toBe('2 min ago')
})
