// A profile as typed arrays, which are quick to walk and cheap to hand to a worker.

import { Damaged } from './damaged'
import type { Comparison, Flamegraph, FunctionsJson, NodesJson, ThreadJson, Unit } from './json'
import { unpack } from './packed'
import { isRuntime } from './runtime'
import { extended, joined, textAt, type Texts } from './texts'

/** What a function may be; the exporter has the same numbers. */
export const KIND = { user: 0, kernel: 1, process: 2, thread: 3, cut: 4, root: 5 } as const

/** Weights by the node where stacks end. */
export interface Weights {
  node: Uint32Array
  /** Index into the threads; of no use in comparisons. */
  thread: Uint32Array
  weight: Float64Array
  /** Index into `states`. */
  state: Uint8Array
  /** What it is in the profile to compare with. */
  other: Float64Array | null
}

/** Weights in stretches of time. */
export interface Times {
  bucketMs: number
  bucket: Uint32Array
  weights: Weights
}

/** What the worker needs. */
export interface Columns {
  strings: Texts
  name: Uint32Array
  file: Uint32Array
  line: Uint32Array
  lines: Uint32Array
  module: Uint32Array
  kind: Uint8Array
  /** 1 for functions of a language's runtime, 0 for others, 2 where nobody has asked yet: see `isOfRuntime`. */
  runtime: Uint8Array
  /** The function that stands for it where runtimes are one frame; for what cannot be a runtime's, itself. */
  merged: Uint32Array
  parent: Uint32Array
  fn: Uint32Array
  inlined: Uint8Array
  weights: Weights
  times: Times | null
}

/** What there is to say about a profile, or each of two. */
export interface Side {
  title: string
  event: string
  durationMs: number
  samples: number
  total: number
  losses: [string, number][]
}

export interface Profile extends Side {
  unit: Unit
  sampler: string
  frequency: number
  periodMs: number
  host: string
  kernel: string
  startedMs: number
  cut: [string, number][]
  threads: ThreadJson[]
  states: string[]
  columns: Columns
  /** The profile to compare with. */
  against: Side | null
}

/** What a thread did while it was sampled at work. */
export const RUNNING = 'running'

/** Reads what the API answered in binary: a profile, or two compared. Throws where it does not hold together. */
export function read(bytes: ArrayBuffer, form: 'one' | 'two'): Profile {
  const answer = unpack(bytes)
  return form === 'one' ? decode(answer as Flamegraph) : decodeComparison(answer as Comparison)
}

/** Reads what the API answered. Throws where it does not hold together. */
export function decode(json: Flamegraph): Profile {
  const { times } = json
  for (const name of ['threads', 'losses', 'cut'] as const) {
    if (!Array.isArray(json[name])) throw new Damaged(`there are no ${name}`)
  }
  const base = common(json, json.threads.length)
  const states = Array.isArray(json.states) && json.states.length ? json.states : ['']
  const own = single(json.weights, base, states.length)
  let stretches: Times | null = null
  if (times && times.bucket_ms > 0) {
    stretches = {
      bucketMs: times.bucket_ms,
      bucket: column(Uint32Array, times.bucket, rows(times.node, 'times.node'), Infinity, 'times.bucket'),
      weights: single(times, base, states.length),
    }
  }
  return {
    title: json.title, event: json.event, unit: json.unit, sampler: json.sampler, frequency: json.frequency,
    periodMs: json.period_ms, host: json.host, kernel: json.kernel, startedMs: json.started_ms,
    durationMs: json.duration_ms, samples: json.samples, total: sum(own.weight), losses: json.losses, cut: json.cut,
    threads: json.threads, states, against: null,
    columns: { ...base.columns, weights: own, times: stretches },
  }
}

/** Reads a comparison: a profile whose weights have another beside them. */
export function decodeComparison(json: Comparison): Profile {
  const base = common(json, 1)
  for (const name of ['a', 'b', 'weights'] as const) need(json[name], name)
  const { node, a, b } = json.weights
  const length = rows(node, 'weights.node')
  const weights: Weights = {
    node: column(Uint32Array, node, length, base.nodes, 'weights.node'),
    thread: new Uint32Array(length),
    weight: column(Float64Array, b, length, Infinity, 'weights.b'),
    state: new Uint8Array(length),
    other: column(Float64Array, a, length, Infinity, 'weights.a'),
  }
  const side = (from: Comparison['a']): Side => ({
    title: from.title, event: from.event, durationMs: from.duration_ms, samples: from.samples, total: from.total,
    losses: Object.entries(from.losses),
  })
  return {
    ...side(json.b), against: side(json.a), unit: json.unit, sampler: '', frequency: 0, periodMs: 0, host: '', kernel: '',
    startedMs: 0, cut: [], threads: [{ pid: 0, process: '', tid: 0, name: '' }], states: [RUNNING],
    columns: { ...base.columns, weights, times: null },
  }
}

interface Base {
  columns: Omit<Columns, 'weights' | 'times'>
  nodes: number
  threads: number
}

type Column = ArrayLike<number>

function common(
  json: { strings: string[] | Texts, functions: FunctionsJson<Column>, nodes: NodesJson<Column> }, threads: number,
): Base {
  const { functions, nodes } = json
  need(functions, 'functions')
  need(nodes, 'nodes')
  const count = rows(functions.name, 'functions.name'), size = rows(nodes.parent, 'nodes.parent')
  const strings = Array.isArray(json.strings) ? joined(json.strings) : ascending(json.strings)
  const texts = strings.ends.length
  const of = (name: keyof FunctionsJson, limit: number) =>
    column(Uint32Array, functions[name], count, limit, `functions.${name}`)
  const kind = column(Uint8Array, functions.kind, count, 6, 'functions.kind')
  const parent = column(Uint32Array, nodes.parent, size, size, 'nodes.parent')
  for (let node = 1; node < size; node++) {
    if (parent[node]! >= node) throw new Damaged(`node ${node} stands before its parent`)
  }
  if (size === 0) throw new Damaged('the tree has no root')
  const extended = withMerged({
    strings, kind, runtime: unasked(kind),
    name: of('name', texts), module: of('module', texts), file: of('file', texts),
    line: of('line', Infinity), lines: of('lines', Infinity),
    parent,
    fn: column(Uint32Array, nodes.function, size, count, 'nodes.function'),
    inlined: column(Uint8Array, nodes.inlined, size, 2, 'nodes.inlined'),
  })
  return { columns: extended, nodes: size, threads }
}

/** Which functions might be of a runtime. */
function unasked(kind: Uint8Array): Uint8Array {
  const runtime = new Uint8Array(kind.length)
  for (let fn = 0; fn < kind.length; fn++) if (kind[fn] === KIND.user) runtime[fn] = 2
  return runtime
}

function ascending(texts: Texts): Texts {
  let from = 0
  const { ends } = texts
  for (let at = 0; at < ends.length; at++) {
    if (ends[at]! < from) throw new Damaged('strings.ends goes back')
    from = ends[at]!
  }
  if (from !== texts.all.length) throw new Damaged('strings.ends does not end with the text')
  return texts
}

/** Adds a function for the runtime frames of each module, to stand for them where they are merged. */
function withMerged(columns: Omit<Columns, 'weights' | 'times' | 'merged'>): Omit<Columns, 'weights' | 'times'> {
  const { strings, module, kind } = columns
  const count = module.length
  const made = new Map<number, number>()
  const merged = new Uint32Array(count)
  let last = -1, lastId = 0
  for (let fn = 0; fn < count; fn++) {
    merged[fn] = fn
    if (kind[fn] !== KIND.user) continue
    const of = module[fn]!
    if (of !== last) {
      last = of
      lastId = made.get(of) ?? count + made.size
      made.set(of, lastId)
    }
    merged[fn] = lastId
  }
  const modules = [...made.keys()]
  const names = modules.map((of) => {
    const file = textAt(strings, of).split('/').pop()!
    return `[runtime${file ? ` ${file}` : ''}]`
  })
  const more = <T extends Uint32Array | Uint8Array>(old: T, added: number[]): T => {
    const grown = new (old.constructor as new (length: number) => T)(count + added.length)
    grown.set(old)
    grown.set(added, count)
    return grown
  }
  const zeros = modules.map(() => 0)
  const first = strings.ends.length
  return {
    ...columns,
    strings: extended(strings, [...names, '']),
    name: more(columns.name, modules.map((_, at) => first + at)), module: more(module, modules), kind: more(kind, zeros),
    runtime: more(columns.runtime, modules.map(() => 1)), merged: more(merged, modules.map((_, at) => count + at)),
    file: more(columns.file, modules.map(() => first + modules.length)),
    line: more(columns.line, zeros), lines: more(columns.lines, zeros),
  }
}

function single(
  from: { thread: Column, node: Column, weight: Column, state?: Column }, base: Base, states: number,
): Weights {
  need(from, 'weights')
  const length = rows(from.node, 'weights.node')
  return {
    node: column(Uint32Array, from.node, length, base.nodes, 'weights.node'),
    thread: column(Uint32Array, from.thread, length, base.threads, 'weights.thread'),
    weight: column(Float64Array, from.weight, length, Infinity, 'weights.weight'),
    state: from.state ? column(Uint8Array, from.state, length, states, 'weights.state') : new Uint8Array(length),
    other: null,
  }
}

type Numbers = Uint32Array | Uint8Array | Float64Array

/** A column as typed array; the one that it is already, if it is of this kind. */
function column<T extends Numbers>(
  kind: { new (list: ArrayLike<number>): T }, list: Column | undefined, length: number, limit: number, name: string,
): T {
  if (!isColumn(list) || list.length !== length) throw new Damaged(`${name} has not ${length} entries`)
  checkRange(list, limit, name)
  return list instanceof kind ? list : new kind(list)
}

function checkRange(list: Column, limit: number, name: string): void {
  // What the type cannot hold need not be looked for.
  const isWhole = list instanceof Uint8Array || list instanceof Uint16Array || list instanceof Uint32Array
  if (isWhole && limit >= 2 ** (8 * list.BYTES_PER_ELEMENT)) return
  const wrong = isWhole ? firstAbove(list, limit) : firstOutside(list, limit)
  if (wrong < list.length) throw new Damaged(`${name}[${wrong}] is out of range`)
}

function firstAbove(list: Uint8Array | Uint16Array | Uint32Array, limit: number): number {
  let at = 0
  while (at < list.length && list[at]! < limit) at++
  return at
}

function firstOutside(list: Column, limit: number): number {
  let at = 0
  while (at < list.length && list[at]! >= 0 && list[at]! < limit) at++
  return at
}

/** What a server that is damaged, or another, may have left out. */
function need(part: unknown, name: string): void {
  if (typeof part !== 'object' || part === null) throw new Damaged(`there is no ${name}`)
}

/** The length of a column, which has to be there. */
function rows(list: Column | undefined, name: string): number {
  if (!isColumn(list)) throw new Damaged(`there is no column ${name}`)
  return list.length
}

function isColumn(list: unknown): list is Column {
  return Array.isArray(list) || (ArrayBuffer.isView(list) && !(list instanceof DataView))
}

function sum(list: Float64Array): number {
  let all = 0
  for (const value of list) all += value
  return all
}

/** The number of functions, with those that stand for runtimes. */
export function functionCount(columns: Columns): number {
  return columns.name.length
}

export function nameOf(columns: Columns, fn: number): string {
  return textAt(columns.strings, columns.name[fn]!)
}

export function fileOf(columns: Columns, fn: number): string {
  return textAt(columns.strings, columns.file[fn]!)
}

export function moduleOf(columns: Columns, fn: number): string {
  return textAt(columns.strings, columns.module[fn]!)
}

/** Is it a function of a language's runtime? Found out when it is first asked for. */
export function isOfRuntime(columns: Columns, fn: number): boolean {
  const { runtime } = columns
  if (runtime[fn] === 2) runtime[fn] = isRuntime(nameOf(columns, fn), moduleOf(columns, fn)) ? 1 : 0
  return runtime[fn] === 1
}
