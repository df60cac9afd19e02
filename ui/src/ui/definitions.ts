// What a form asks for of a rule or a function, and how its texts become a definition.

import type { Definition } from '@/api/types'

export interface Field {
  key: string
  label: string
  hint?: string
  placeholder?: string
  required?: boolean
  /** What can be chosen; other texts can be typed unless `only`. */
  choices?: readonly string[]
  only?: boolean
  /** How its text is sent. */
  as?: 'list' | 'times' | 'integer'
  /** Behind "More". */
  more?: boolean
  /** It belongs to this field: shown and sent only where that one is given. */
  of?: string
  /** What is wrong with a text, if that can be said without the server. */
  check?: (text: string) => string | undefined
}

const duration = (text: string) =>
  /^(\d+(\.\d+)?|(\d+\s*(ns|us|ms|s|m|min|h|d|w|sec|secs|hours?|days?|minutes?|seconds?)\s*)+)$/.test(text.trim())
    ? undefined : 'a duration such as 500ms, 5s or 1h 30m'
const windows = (text: string) =>
  /^\d+$/.test(text) && Number(text) >= 2 && Number(text) <= 3600 ? undefined : 'a whole number from 2 to 3600'
const DAY = '(mon|tue|wed|thu|fri|sat|sun)[a-z]*'
const TIME = '\\d{1,2}:\\d{2}-\\d{1,2}:\\d{2}'
const DAYS = `${DAY}(-${DAY})?(,${DAY}(-${DAY})?)*`
const HOURS = new RegExp(`^(${TIME}|${DAYS}(\\s+${TIME})?)$`, 'i')
const times = (text: string) =>
  partsOf(text, 'times').every((part) => HOURS.test(part)) ? undefined : 'times such as 22:00-06:00, Mon-Fri 22:00-06:00 or Sat,Sun'
const zone = (text: string) =>
  /^([+-]\d{1,2}:\d{2}|[a-z][\w+/-]*)$/i.test(text) ? undefined : 'a time zone such as Europe/Berlin or +02:00'
const name = (text: string) => (text.includes('/') ? 'a name without slashes' : text.length > 100 ? 'at most 100 letters' : undefined)

export const METRICS = [
  'cpu', 'cpu.host', 'cpu.quota', 'memory.rss', 'memory.rss_percent', 'memory.growth', 'threads', 'fds', 'offcpu',
  'offcpu.runqueue', 'offcpu.io', 'io', 'io.read', 'io.write', 'switches.voluntary', 'switches.involuntary', 'pressure.cpu',
  'pressure.memory', 'pressure.io', 'host.cpu', 'host.memory', 'function.p99', 'function.avg', 'function.attainment',
  'function.in_flight', 'function.oldest', 'function.rate', 'function.errors',
] as const

export function ruleFields(targets: string[], functions: string[]): Field[] {
  return [
    { key: 'name', label: 'Name', required: true, check: name, placeholder: 'checkout-cpu' },
    { key: 'target', label: 'Target', required: true, choices: [...targets, '*'], hint: '* is every target.' },
    { key: 'metric', label: 'Metric', required: true, choices: METRICS, only: true },
    { key: 'function', label: 'Function', choices: functions, hint: 'For metrics of functions.' },
    { key: 'above', label: 'Above', placeholder: '80', hint: 'Broken by values above it: 80, 40ms, 60MiB, 95%.' },
    { key: 'below', label: 'Below', hint: 'In place of it: broken by values below.' },
    { key: 'for', label: 'For', placeholder: '5s', check: duration, hint: 'How long the value must stay there.' },
    { key: 'cooldown', label: 'Cooldown', placeholder: '5m', check: duration, hint: 'No further breach in this time.' },
    { key: 'change', label: 'Change', more: true, placeholder: '50', hint: 'In place of a threshold: percent above the average before.' },
    { key: 'windows', label: 'Windows', more: true, of: 'change', placeholder: '60', as: 'integer', check: windows, hint: 'How many values the average is of, one a second.' },
    { key: 'min', label: 'Min', more: true, of: 'change', placeholder: '0', hint: 'Values up to this break no rule: little is soon twice as much.' },
    { key: 'per', label: 'Per', more: true, choices: ['process', 'service', 'thread'], only: true },
    { key: 'clear_below', label: 'Clear below', more: true, hint: 'With above: over only when below this.' },
    { key: 'clear_above', label: 'Clear above', more: true, hint: 'With below: over only when above this.' },
    { key: 'max', label: 'Max', more: true, hint: 'Above this a breach is told of, but nothing is collected.' },
    { key: 'keep_firing_for', label: 'Keep firing for', more: true, placeholder: '0s', check: duration },
    { key: 'warm_up', label: 'Warm-up', more: true, placeholder: '0s', check: duration },
    { key: 'quiet', label: 'Quiet', as: 'times', more: true, placeholder: 'Mon-Fri 22:00-06:00', check: times, hint: 'Times in which no breach begins, joined by semicolons.' },
    { key: 'timezone', label: 'Time zone', more: true, placeholder: 'UTC', check: zone, hint: 'That of the quiet times.' },
    { key: 'snapshot.before', label: 'Keep before', more: true, placeholder: '30s', check: duration },
    { key: 'snapshot.after', label: 'Keep after', more: true, placeholder: '5s', check: duration },
    { key: 'snapshot.threads', label: 'Keep threads', more: true, placeholder: '2', as: 'integer' },
    { key: 'notify', label: 'Notify', as: 'list', more: true, hint: 'Names of channels, joined by commas.' },
  ]
}

export function functionFields(targets: string[]): Field[] {
  return [
    { key: 'name', label: 'Name', required: true, check: name, placeholder: 'channel_push' },
    { key: 'target', label: 'Target', required: true, choices: targets },
    { key: 'symbol', label: 'Symbol', required: true, placeholder: 'libpush.so:send_to_vendor', hint: 'A name, module:name, a glob, /regex/, or file@0xaddress.' },
    { key: 'group', label: 'Group', hint: 'What it belongs to, for people.' },
    { key: 'threshold', label: 'Threshold', placeholder: '20ms', check: duration, hint: 'Calls within it count for function.attainment.' },
    { key: 'errors', label: 'Errors', placeholder: '<0', hint: 'Which returned values are errors: <0, >3, =0 or !=0.' },
  ]
}

/** What joins the parts of a list; a time of the week may have commas of its own. */
const JOINT = { list: ',', times: ';' } as const
function partsOf(text: string, as: keyof typeof JOINT): string[] {
  return text.split(JOINT[as]).map((part) => part.trim()).filter(Boolean)
}

/** Whether a field is asked for, with what the others say. */
export function isAsked({ of }: Field, texts: Record<string, string>): boolean {
  return of === undefined || !!texts[of]?.trim()
}

/** The texts of a form for a definition. */
export function textsOf(fields: Field[], definition: Definition): Record<string, string> {
  return Object.fromEntries(fields.map(({ key, as }) => {
    const [outer = '', inner] = key.split('.')
    const value = inner === undefined ? definition[outer] : (definition[outer] as Definition | undefined)?.[inner]
    return [key, Array.isArray(value) ? value.join(`${as === 'times' ? JOINT.times : JOINT.list} `) : typeof value === 'string' || typeof value === 'number' ? String(value) : '']
  }))
}

/** The definition that the texts say; keys of `former` that the form does not know stay. */
export function definitionOf(fields: Field[], texts: Record<string, string>, former: Definition): Definition {
  const made: Definition = JSON.parse(JSON.stringify(former)) as Definition
  for (const field of fields) {
    const { key, as } = field
    const text = isAsked(field, texts) ? (texts[key] ?? '').trim() : ''
    const [outer = '', inner] = key.split('.')
    const holder = inner === undefined ? made : ((made[outer] ??= {}) as Definition)
    const last = inner ?? outer
    // eslint-disable-next-line @typescript-eslint/no-dynamic-delete -- keys are those of the fields
    if (!text) delete holder[last]
    else holder[last] = as === 'list' || as === 'times' ? partsOf(text, as) : valueOf(text)
    // eslint-disable-next-line @typescript-eslint/no-dynamic-delete -- the same
    if (inner !== undefined && !Object.keys(holder).length) delete made[outer]
  }
  return made
}

/** A number where the text is one: the configuration tells them apart from texts with a unit. */
function valueOf(text: string): string | number {
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text
}

/** What is wrong, by key, as far as that can be said without the server. */
export function wrongOf(fields: Field[], texts: Record<string, string>): Map<string, string> {
  const wrong = new Map<string, string>()
  for (const { key, label, required, check } of fields.filter((field) => isAsked(field, texts))) {
    const text = (texts[key] ?? '').trim()
    const reason = text ? check?.(text) : required ? `${label} is needed` : undefined
    if (reason) wrong.set(key, reason)
  }
  const metric = texts['metric'] ?? ''
  if (metric) {
    if (metric.startsWith('function.') && !texts['function']) wrong.set('function', `${metric} needs a function`)
    if (!metric.startsWith('function.') && texts['function']) wrong.set('function', `${metric} is not a metric of a function`)
    const given = ['above', 'below', 'change'].filter((key) => texts[key]?.trim())
    if (given.length !== 1) wrong.set(given[1] ?? 'above', 'exactly one of above, below and change is needed')
    const isLow = !!texts['below']?.trim() || texts['change']?.trim().startsWith('-')
    if (texts['max']?.trim() && isLow) wrong.set('max', 'only for rules that are broken by high values')
    if (texts['timezone']?.trim() && !texts['quiet']?.trim()) wrong.set('timezone', 'it is that of quiet times, which are not there')
  }
  return wrong
}
