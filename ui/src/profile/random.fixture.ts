// Random profiles for tests, the same in every run, and what is true of them computed the slow way.

import type { ComparisonJson, FlamegraphJson } from './json'

export function random(seed: number): () => number {
  let state = seed >>> 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 4294967296
  }
}

export interface Stack {
  names: string[]
  thread: number
  bucket: number
  weight: number
  other: number
}

/** Stacks of a program that calls itself, and the kernel at times. */
export function stacks(seed: number, count = 300, functions = 12, depth = 14): Stack[] {
  const next = random(seed)
  return Array.from({ length: count }, () => {
    const names = ['p (pid 1)']
    const frames = 1 + Math.floor(next() * depth)
    for (let at = 0; at < frames; at++) {
      const kernel = at > frames - 3 && next() < 0.4
      names.push(kernel ? `k${Math.floor(next() * 4)}` : `f${Math.floor(next() * next() * functions)}`)
    }
    return {
      names, thread: Math.floor(next() * 3), bucket: Math.floor(next() * 40), weight: 1 + Math.floor(next() * 9),
      other: Math.floor(next() * 5),
    }
  })
}

interface Table { strings: string[], functions: FlamegraphJson['functions'], nodes: FlamegraphJson['nodes'] }

/** The tree of stacks, and the node where each ends. */
export function table(list: Stack[]): { table: Table, ends: number[] } {
  const strings = ['all', '']
  const table: Table = {
    strings,
    functions: { name: [0], file: [1], line: [0], lines: [0], module: [1], kind: [5] },
    nodes: { parent: [0], function: [0], inlined: [0] },
  }
  const functions = new Map<string, number>()
  const nodes = new Map<string, number>()
  const fn = (name: string) => {
    let id = functions.get(name)
    if (id === undefined) {
      id = table.functions.name.length
      functions.set(name, id)
      strings.push(name)
      const kind = name.startsWith('k') ? 1 : name.includes('(pid') ? 2 : 0
      for (const [key, value] of Object.entries({ name: strings.length - 1, file: 1, line: id, lines: 1, module: 1, kind })) {
        table.functions[key as 'name'].push(value)
      }
    }
    return id
  }
  const ends = list.map((stack) => {
    let node = 0
    for (const name of stack.names) {
      const key = `${node} ${name}`
      let child = nodes.get(key)
      if (child === undefined) {
        child = table.nodes.parent.length
        nodes.set(key, child)
        table.nodes.parent.push(node)
        table.nodes.function.push(fn(name))
        table.nodes.inlined.push(0)
      }
      node = child
    }
    return node
  })
  return { table, ends }
}

export function flamegraph(list: Stack[]): FlamegraphJson {
  const { table: base, ends } = table(list)
  const column = (key: 'thread' | 'weight' | 'bucket') => list.map((stack) => stack[key])
  return {
    title: 'cpu of p', event: 'cpu', unit: 'samples', sampler: 'cpu-clock', frequency: 99, period_ms: 10, host: 'h',
    kernel: '6.1', started_ms: 0, duration_ms: 2000, samples: list.length, losses: [], cut: [],
    threads: [0, 1, 2].map((tid) => ({ pid: 1, process: 'p', tid: 100 + tid, name: `t${tid}` })),
    ...base,
    weights: { thread: column('thread'), node: ends, weight: column('weight') },
    times: { bucket_ms: 50, bucket: column('bucket'), thread: column('thread'), node: ends, weight: column('weight') },
  }
}

export function comparison(list: Stack[]): ComparisonJson {
  const { table: base, ends } = table(list)
  const a = new Map<number, number>(), b = new Map<number, number>()
  ends.forEach((node, at) => {
    a.set(node, (a.get(node) ?? 0) + list[at]!.other)
    b.set(node, (b.get(node) ?? 0) + list[at]!.weight)
  })
  const node = [...b.keys()]
  const side = (title: string) => ({ title, event: 'cpu', duration_ms: 1000, samples: 1, total: 1, losses: {} })
  return {
    a: side('a'), b: side('b'), unit: 'samples', ...base,
    weights: { node, a: node.map((at) => a.get(at)!), b: node.map((at) => b.get(at)!) },
  }
}

interface Place { name: string, type: string, length: number }

/** The binary form of an answer, as the exporter writes it; `change` changes what its head says of the columns. */
export function pack(json: FlamegraphJson | ComparisonJson, change: (columns: Place[]) => void = () => undefined): ArrayBuffer {
  const { strings, ...others } = json
  const rest: Record<string, unknown> = {}
  const text = new TextEncoder().encode(strings.join(''))
  const columns: [Place, Uint8Array][] = [[{ name: 'strings', type: 'utf8', length: text.length }, text]]
  const add = (name: string, list: number[]) => {
    const most = Math.max(0, ...list)
    const [type, kind] = most < 2 ** 8 ? ['u8', Uint8Array] as const : most < 2 ** 16 ? ['u16', Uint16Array] as const
      : most < 2 ** 32 ? ['u32', Uint32Array] as const : ['f64', Float64Array] as const
    columns.push([{ name, type, length: list.length }, new Uint8Array(kind.from(list).buffer)])
  }
  let end = 0
  add('strings.ends', strings.map((one) => end += one.length))
  for (const [table, fields] of Object.entries(others)) {
    if (!['functions', 'nodes', 'weights', 'times'].includes(table)) {
      rest[table] = fields
      continue
    }
    const kept: Record<string, unknown> = {}
    for (const [field, value] of Object.entries(fields as object)) {
      if (Array.isArray(value)) add(`${table}.${field}`, value as number[])
      else kept[field] = value
    }
    if (Object.keys(kept).length) rest[table] = kept
  }
  const places = columns.map(([place]) => place)
  change(places)
  const aligned = (length: number) => Math.ceil(length / 8) * 8
  const plain = new TextEncoder().encode(JSON.stringify({ ...rest, columns: places }))
  const head = new Uint8Array(aligned(plain.length)).fill(0x20)
  head.set(plain)
  const parts: Uint8Array[] = [new TextEncoder().encode('probecol'), new Uint8Array(Uint32Array.of(1, head.length).buffer), head]
  columns.forEach(([, bytes], at) => {
    parts.push(bytes)
    if (at + 1 < columns.length) parts.push(new Uint8Array(aligned(bytes.length) - bytes.length))
  })
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  parts.reduce((at, part) => { whole.set(part, at); return at + part.length }, 0)
  return whole.buffer
}
