// Who did it, in the parts of one sentence: the same as the server's own (`monitor/culprits.rs`).

import type { Culprit } from '@/api/types'

import { shown } from './names'
import { formatSpan, formatValue } from './values'

export interface Sentence {
  function: string
  /** `file:line`, or the module. */
  place: string
  rest: string
  thread: string
}

export function sentenceOf(culprit: Culprit): Sentence {
  const base = (path: string) => path.split('/').pop() ?? path
  const place = culprit.file ? `${base(culprit.file)}${culprit.line ? `:${culprit.line}` : ''}` : base(culprit.module)
  return { function: culprit.function, place, rest: restOf(culprit), thread: culprit.thread }
}

function restOf({ of, share, baseline_share: before, without_baseline: isUnknown, bytes, kept_for_ns: kept }: Culprit): string {
  const [from, to] = [Math.round(before), Math.round(share)]
  if (bytes && kept) return `keeps ${formatValue(bytes, 'bytes')} that it allocated, ${to} % of what is in use after ${formatSpan(kept / 1e9)}`
  if (bytes) return `took ${formatValue(bytes, 'bytes')}, ${to} % of the memory that the process took`
  if (of === 'threads') return `is what ${to} % of the threads do`
  const part = of === 'waits' ? 'the time that threads wait' : typeof of === 'object' ? `the time in ${shown(of.calls)}` : 'the process'
  if (isUnknown) return `is ${to} % of ${part}`
  if (from === to) return `is ${to} % of ${part}, as before`
  return `went from ${from} % to ${to} % of ${part}`
}
