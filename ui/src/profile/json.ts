// What the API answers with `format=flamegraph` and for `/diff`: tables as columns of equal length. Columns (`N`) are lists in
// the JSON form and typed arrays in the binary one, which has its strings (`S`) in one.

import type { Texts } from './texts'

/** Functions; `name`, `file` and `module` are indexes into the strings. */
export interface FunctionsJson<N = number[]> {
  name: N
  file: N
  /** The hottest line; 0 when unknown. */
  line: N
  /** In how many lines there was any weight. */
  lines: N
  module: N
  /** 0 program, 1 kernel, 2 process, 3 thread, 4 where a stack was cut, 5 the root. */
  kind: N
}

/** The tree: node 0 is the root, a parent stands before its children. */
export interface NodesJson<N = number[]> {
  parent: N
  function: N
  inlined: N
}

export interface ThreadJson {
  pid: number
  process: string
  tid: number
  name: string
}

export type Unit = 'samples' | 'microseconds' | 'bytes'

/** What each thread adds to the nodes where its stacks end, in a stretch of time. */
export interface TimesJson<N = number[]> {
  /** Length of a stretch in milliseconds. */
  bucket_ms: number
  /** Which stretch. */
  bucket: N
  /** Index into the threads. */
  thread: N
  /** Index into the nodes. */
  node: N
  weight: N
  /** Index into the states. */
  state?: N
}

export interface FlamegraphJson<N = number[], S = string[]> {
  title: string
  event: string
  unit: Unit
  sampler: string
  frequency: number
  /** CPU time that a sample stands for, in milliseconds; 0 where samples stand for none. */
  period_ms: number
  host: string
  kernel: string
  started_ms: number
  duration_ms: number
  samples: number
  losses: [string, number][]
  /** Samples whose stack was cut, by reason. */
  cut: [string, number][]
  threads: ThreadJson[]
  strings: S
  functions: FunctionsJson<N>
  nodes: NodesJson<N>
  weights: { thread: N, node: N, weight: N, state?: N }
  /** What each thread did: `running`, `sleeping`, …; where it is known. */
  states?: string[]
  /** When it was; only where asked for and known. */
  times?: TimesJson<N> | null
}

export interface SideJson {
  title: string
  event: string
  duration_ms: number
  samples: number
  total: number
  losses: Record<string, number>
}

export interface ComparisonJson<N = number[], S = string[]> {
  /** The one to compare with. */
  a: SideJson
  /** The one that is compared. */
  b: SideJson
  unit: Unit
  strings: S
  functions: FunctionsJson<N>
  nodes: NodesJson<N>
  weights: { node: N, a: N, b: N }
}

/** Either form. */
export type Flamegraph = FlamegraphJson<ArrayLike<number>, string[] | Texts>
export type Comparison = ComparisonJson<ArrayLike<number>, string[] | Texts>
