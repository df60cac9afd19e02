// A dump of threads: which of them stand in the same place.

import type { Profile } from './profile'
import { each, type Selection } from './select'

export interface Group {
  /** The node where the stack ends. */
  node: number
  /** Functions, the innermost first. */
  stack: number[]
  /** Which of them were inlined. */
  inlined: boolean[]
  threads: { index: number, state: string }[]
}

/** Threads by stack, the largest groups first. Frames of processes and threads are left out. */
export function groups(profile: Profile, selection: Selection): Group[] {
  const { columns, states } = profile
  const found = new Map<number, Group>()
  each(columns.weights, selection, (at) => {
    const node = columns.weights.node[at]!
    let group = found.get(node)
    if (!group) {
      group = { node, stack: [], inlined: [], threads: [] }
      for (let from = node; from > 0; from = columns.parent[from]!) {
        const kind = columns.kind[columns.fn[from]!]!
        if (kind === 2 || kind === 3 || kind === 5) continue
        group.stack.push(columns.fn[from]!)
        group.inlined.push(columns.inlined[from] === 1)
      }
      found.set(node, group)
    }
    group.threads.push({ index: columns.weights.thread[at]!, state: states[columns.weights.state[at]!] ?? '' })
  })
  const list = [...found.values()]
  return list.sort((a, b) => b.threads.length - a.threads.length || a.node - b.node)
}
