import { expect, test } from 'vitest'

import type { Culprit } from '@/api/types'

import { sentenceOf } from './culprit'

const culprit: Culprit = {
  function: 'match_rules', module: '/usr/bin/checkout', file: '/src/rules.c', line: 41, thread: 'matcher', share: 88, baseline_share: 0.4, change: 87.6, of: 'cpu',
}

test('what the server says is shown', () => {
  const of = { calls: 'deliver' }
  const sentence = 'deliver takes 93 ms instead of 2 ms: 77 ms of it asleep in `usleep` from relay_deliver (relay.cpp:30), in thread relay'
  const calls = { ...culprit, of, function: 'relay_deliver', file: '/src/relay.cpp', line: 30, thread: 'relay', sentence }
  const lead = 'deliver takes 93 ms instead of 2 ms: 77 ms of it asleep in `usleep` from'
  expect(sentenceOf(calls)).toEqual({ lead, function: 'relay_deliver', place: 'relay.cpp:30', rest: '', thread: 'relay' })
  const same = 'match_rules (rules.c:41) is 88 % of the process, which did next to nothing before, in thread matcher'
  expect(sentenceOf({ ...culprit, sentence: same }).rest).toBe('is 88 % of the process, which did next to nothing before')
})

test('the sentence is that of the server, in parts', () => {
  expect(sentenceOf(culprit)).toEqual({ lead: '', function: 'match_rules', place: 'rules.c:41', rest: 'went from 0 % to 88 % of the process', thread: 'matcher' })
  expect(sentenceOf({ ...culprit, file: '', line: 0 }).place).toBe('checkout')
  expect(sentenceOf({ ...culprit, of: { calls: 'book\u202e' } }).rest).toBe('went from 0 % to 88 % of the time in book⟨U+202E⟩')
  expect(sentenceOf({ ...culprit, share: 0.4 }).rest).toBe('is 0 % of the process, as before')
  expect(sentenceOf({ ...culprit, of: 'waits', without_baseline: true }).rest).toBe('is 88 % of the time that threads wait')
  expect(sentenceOf({ ...culprit, of: 'threads' }).rest).toBe('is what 88 % of the threads do')
  const memory = { ...culprit, bytes: 9 << 20 }
  expect(sentenceOf(memory).rest).toBe('took 9.0 MiB, 88 % of the memory that the process took')
  expect(sentenceOf({ ...memory, kept_for_ns: 2e9 }).rest).toBe('keeps 9.0 MiB that it allocated, 88 % of what is in use after 2 s')
})
