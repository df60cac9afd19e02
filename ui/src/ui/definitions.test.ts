import { expect, test } from 'vitest'

import { definitionOf, functionFields, ruleFields, textsOf, wrongOf } from './definitions'

const fields = ruleFields(['checkout'], ['push'])

test('a definition that was read into a form is the same when it is sent', () => {
  const rule = {
    name: 'hot', target: 'checkout', metric: 'cpu', change: 80, for: '5s', notify: ['ops', 'pager'], windows: 30, min: '5ms', max: 200,
    quiet: ['Mon-Fri 22:00-06:00', 'Sat,Sun'], timezone: 'Europe/Berlin', unknown: { of: 'a later version' }, snapshot: { before: '6s', threads: 2 },
  }
  expect(definitionOf(fields, textsOf(fields, rule), rule)).toEqual(rule)
})

test('what is emptied is left out', () => {
  const rule = { name: 'hot', target: 'checkout', metric: 'cpu', above: 80, snapshot: { before: '6s' } }
  const texts = { ...textsOf(fields, rule), 'snapshot.before': '', above: '', below: '40ms' }
  expect(definitionOf(fields, texts, rule)).toEqual({ name: 'hot', target: 'checkout', metric: 'cpu', below: '40ms' })
})

test('a change becomes a threshold, without what belonged to it', () => {
  // As the server lists it: with the defaults.
  const rule = { name: 'hot', target: 'checkout', metric: 'cpu', change: 50, windows: 60, min: 0, for: '5s' }
  const texts = { ...textsOf(fields, rule), change: '', above: '80' }
  expect(definitionOf(fields, texts, rule)).toEqual({ name: 'hot', target: 'checkout', metric: 'cpu', above: 80, for: '5s' })
  // What is not asked for cannot be wrong either.
  expect(wrongOf(fields, { ...texts, windows: 'many' }).size).toBe(0)
})

test('what is plainly wrong is said before it is sent', () => {
  const texts = { name: 'a/b', target: '', metric: 'function.p99', above: '1', below: '2', for: 'soon' }
  expect(Object.fromEntries(wrongOf(fields, texts))).toEqual({
    name: 'a name without slashes', target: 'Target is needed', function: 'function.p99 needs a function',
    below: 'exactly one of above, below and change is needed', for: 'a duration such as 500ms, 5s or 1h 30m',
  })
  expect(wrongOf(fields, { name: 'a', target: '*', metric: 'cpu', above: '80', for: '1h 30m' }).size).toBe(0)
  const right = { name: 'a', target: '*', metric: 'cpu', change: '50' }
  const wrongWith = (more: Record<string, string>) => Object.fromEntries(wrongOf(fields, { ...right, ...more }))
  for (const windows of ['1', '3601', '2.5', 'many']) expect(wrongWith({ windows })).toEqual({ windows: 'a whole number from 2 to 3600' })
  expect(wrongWith({ windows: '2', min: '5ms', max: '200', quiet: 'Mon-Fri 22:00-06:00; Sat,Sun', timezone: '+02:00' })).toEqual({})
  expect(wrongWith({ quiet: '22:00-06:00; at night' })).toEqual({ quiet: 'times such as 22:00-06:00, Mon-Fri 22:00-06:00 or Sat,Sun' })
  expect(wrongWith({ timezone: 'UTC' })).toEqual({ timezone: 'it is that of quiet times, which are not there' })
  expect(wrongWith({ quiet: 'Sat', timezone: '2 hours' })).toEqual({ timezone: 'a time zone such as Europe/Berlin or +02:00' })
  for (const low of [{ change: '-50' }, { change: '', below: '5' }]) {
    expect(wrongWith({ ...low, max: '9' })).toEqual({ max: 'only for rules that are broken by high values' })
  }
  expect(wrongOf(functionFields([]), { name: 'f', target: 't', symbol: 's' }).size).toBe(0)
})
