// Values of metrics and times, for people.

import { formatBytes } from '@/profile/format'

const number = new Intl.NumberFormat('en-US', { maximumFractionDigits: 1 })
const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

/** What a metric is measured in, as the API names units. */
export function unitOf(metric: string): string {
  if (metric === 'cpu') return 'percent of one core'
  if (metric === 'memory.growth') return 'bytes a minute'
  if (metric === 'memory.rss') return 'bytes'
  if (metric === 'io' || metric.startsWith('io.')) return 'bytes a second'
  if (metric === 'function.p99' || metric === 'function.avg' || metric === 'function.oldest') return 'nanoseconds'
  if (metric === 'function.attainment') return 'percent'
  if (metric === 'function.in_flight') return 'calls'
  if (metric.startsWith('function.')) return 'calls a second'
  if (metric.startsWith('switches.')) return 'a second'
  if (metric === 'threads' || metric === 'fds') return ''
  return 'percent'
}

/** A value with its unit, as short as it can be. */
export function formatValue(value: number | null | undefined, unit: string): string {
  if (value === null || value === undefined) return '–'
  switch (unit) {
    case 'nanoseconds': return formatNanoseconds(value)
    case 'bytes': return formatBytes(value)
    case 'bytes a minute': return `${formatBytes(value)}/min`
    case 'bytes a second': return `${formatBytes(value)}/s`
  }
  if (unit.startsWith('percent')) return `${number.format(value)} %`
  if (unit.endsWith('a second')) return `${number.format(value)}/s`
  return number.format(value)
}

/** What a percentage is of; empty where the value says all. */
export function unitNote(unit: string): string {
  return unit.startsWith('percent of') ? unit.slice('percent '.length) : ''
}

export function formatNanoseconds(ns: number): string {
  if (ns >= 60e9) return `${number.format(ns / 60e9)} min`
  if (ns >= 1e9) return `${(ns / 1e9).toFixed(2)} s`
  if (ns >= 1e6) return `${number.format(ns / 1e6)} ms`
  if (ns >= 1e3) return `${number.format(ns / 1e3)} µs`
  return `${whole.format(ns)} ns`
}

export function formatCount(count: number): string {
  return whole.format(count)
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' })
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })
const dayOfYear = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' })

/** The time of the day where the reader is. */
export function formatClock(time: string | number): string {
  return clock.format(new Date(time))
}

/** Day and time where the reader is; the year if it is another one. */
export function formatDate(time: string | number, now = Date.now()): string {
  const date = new Date(time)
  const isThisYear = date.getFullYear() === new Date(now).getFullYear()
  return `${(isThisYear ? day : dayOfYear).format(date)}, ${clock.format(date)}`
}

/** How long ago, roughly. */
export function formatAgo(time: string | number, now = Date.now()): string {
  const seconds = Math.max(0, (now - new Date(time).getTime()) / 1000)
  return seconds < 5 ? 'just now' : `${formatSpan(seconds)} ago`
}

/** A length of time, roughly. */
export function formatSpan(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`
}

/** The names of windows, and what they hold. */
export const WINDOWS: Readonly<Record<string, { label: string, about: string }>> = {
  baseline: { label: 'Baseline', about: 'A calm stretch of the process' },
  before: { label: 'Before', about: 'Until the value crossed the threshold' },
  breach: { label: 'Breach', about: 'From then on until the rule was broken' },
  after: { label: 'After', about: 'From then on' },
  dump: { label: 'Thread dump', about: 'Every thread in the moment of the breach' },
  live: { label: 'Live memory', about: 'What was allocated and is in use at the end' },
}

/** What a thread does, in a word, and how to tell it apart without its colour. */
export function stateOf(state: string | null): { label: string, kind: string } {
  switch (state) {
    case 'running': return { label: 'running', kind: 'bad' }
    case 'runnable': return { label: 'waits for a CPU', kind: 'warn' }
    case 'uninterruptible': return { label: 'waits for I/O', kind: 'warn' }
    case 'sleeping': return { label: 'sleeping', kind: '' }
    case null: return { label: 'unknown', kind: '' }
    default: return { label: state, kind: '' }
  }
}
