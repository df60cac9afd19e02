// The engine in a worker: bytes of the API come in, profiles and trees go out.

import { Engine } from '../profile/engine'
import { buffers } from '../profile/layout'
import { read } from '../profile/profile'
import type { Reply, Task } from './protocol'

let engine: Engine | null = null

function answer(task: Task): { value: unknown, moved: ArrayBuffer[] } {
  if (task.kind === 'read') {
    const profile = read(task.bytes, task.form)
    engine = new Engine(profile.columns)
    const moved: ArrayBuffer[] = []
    return { value: copied(profile, moved), moved }
  }
  if (task.kind === 'load') {
    engine = new Engine(task.columns)
    return { value: null, moved: [] }
  }
  if (!engine) throw new Error('no profile was loaded')
  switch (task.kind) {
    case 'tree': {
      const tree = engine.tree(task.request)
      return { value: tree, moved: buffers(tree) }
    }
    case 'totals': return { value: engine.totals(task.selection), moved: [] }
    case 'sandwich': {
      const both = engine.sandwich(task.request)
      return { value: both, moved: [...buffers(both.callers), ...buffers(both.callees)] }
    }
    case 'find': return { value: engine.find(task.text), moved: [] }
  }
}

/** A copy whose arrays of numbers can be handed over, which costs the page nothing. */
function copied<T>(value: T, moved: ArrayBuffer[]): T {
  if (ArrayBuffer.isView(value)) {
    const copy = (value as unknown as Uint8Array<ArrayBuffer>).slice()
    moved.push(copy.buffer)
    return copy as unknown as T
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, copied(inner as unknown, moved)])) as T
}

addEventListener('message', ({ data }: MessageEvent<{ id: number, task: Task }>) => {
  let reply: Reply
  let moved: ArrayBuffer[] = []
  try {
    const done = answer(data.task)
    moved = [...new Set(done.moved)]
    reply = { id: data.id, value: done.value }
  } catch (error) {
    reply = { id: data.id, problem: error instanceof Error ? error.message : String(error) }
  }
  ;(self as unknown as Worker).postMessage(reply, moved)
})
