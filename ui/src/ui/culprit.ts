// Who did it, in the parts of one sentence: the server's. Snapshots of earlier versions have none, so that it is made here.

import type { Culprit } from '@/api/types'

import { shown } from './names'
import { formatSpan, formatValue } from './values'

export interface Sentence {
  /** What stands before the function; most often nothing. */
  lead: string
  function: string
  /** `file:line`, or the module. */
  place: string
  rest: string
  thread: string
}

export function sentenceOf(culprit: Culprit): Sentence {
  const base = (path: string) => path.split('/').pop() ?? path
  const place = culprit.file ? `${base(culprit.file)}${culprit.line ? `:${culprit.line}` : ''}` : base(culprit.module)
  return { lead: '', function: culprit.function, place, rest: restOf(culprit), thread: culprit.thread, ...partsOf(culprit, place) }
}

/** The server's sentence around the function and its place. */
function partsOf({ sentence, function: name, thread }: Culprit, place: string): Partial<Sentence> {
  const marked = place ? `${name} (${place})` : name
  const at = sentence?.lastIndexOf(marked) ?? -1
  if (!sentence || at < 0) return {}
  const suffix = thread ? `, in thread ${thread}` : ''
  const end = suffix && sentence.endsWith(suffix) ? sentence.length - suffix.length : sentence.length
  const rest = sentence.slice(at + marked.length, end).trim()
  return { lead: sentence.slice(0, at).trim(), rest, thread: end < sentence.length ? thread : '' }
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
