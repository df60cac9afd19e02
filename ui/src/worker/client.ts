// Profiles as seen from the page: a worker reads them and answers requests about them. What takes too long is given up: a
// search can take forever, and then the worker is replaced by another.

import type { SandwichRequest, TreeRequest } from '../profile/engine'
import type { Tree } from '../profile/layout'
import type { Columns, Profile } from '../profile/profile'
import type { Selection } from '../profile/select'
import type { Totals } from '../profile/totals'
import type { Form, Reply, Task } from './protocol'
import { startWorker } from './start'

/** How long a search may take, in milliseconds. */
export const PATIENCE_MS = 1500

/** The tree that a page shows when nothing else was chosen. */
const FIRST: TreeRequest = {
  selection: { threads: null, states: null, time: null }, frames: { collapse: false, nokernel: false, noruntime: false },
  invert: false, scale: { own: 1, other: 0 },
}

export class TooSlow extends Error {
  override name = 'TooSlow'
}

/** What answers requests about one profile. */
export interface Backend {
  tree(request: TreeRequest): Promise<Tree>
  totals(selection: Selection): Promise<Totals>
  sandwich(request: SandwichRequest): Promise<{ callers: Tree, callees: Tree }>
  find(text: string): Promise<Uint8Array>
  close(): void
}

export interface Opened {
  profile: Profile
  backend: Backend
}

/** Reads what the API answers. The worker starts meanwhile; `withFirst` has it lay the usual tree out before it is asked. */
export async function open(bytes: Promise<ArrayBuffer>, form: Form = 'one', withFirst = false): Promise<Opened> {
  let remote: Remote | null = null
  try {
    remote = new Remote()
  } catch {
    // No worker may be made here: the page does it.
  }
  try {
    const here = await bytes
    if (remote) return { profile: await remote.read(here, form, withFirst), backend: remote }
    const { openHere } = await import('./local')
    return openHere(here, form)
  } catch (error) {
    remote?.close()
    throw error
  }
}

class Remote implements Backend {
  private worker: Worker
  private columns: Columns | null = null
  private first: Promise<Tree> | null = null
  private waiting = new Map<number, { done: (value: unknown) => void, fail: (error: Error) => void, task: Task }>()
  private next = 0

  constructor() {
    this.worker = this.start()
  }

  async read(bytes: ArrayBuffer, form: Form, withFirst: boolean): Promise<Profile> {
    const reading = this.ask<Profile>({ kind: 'read', bytes, form }, [bytes])
    if (withFirst) {
      this.first = this.ask<Tree>({ kind: 'tree', request: FIRST })
      // Whoever asks for it is told.
      this.first.catch(() => undefined)
    }
    const profile = await reading
    this.columns = profile.columns
    return profile
  }

  tree(request: TreeRequest): Promise<Tree> {
    const { first } = this
    // It may be handed out once, because who has it may change it.
    this.first = null
    return first && JSON.stringify(request) === JSON.stringify(FIRST) ? first : this.ask<Tree>({ kind: 'tree', request })
  }

  totals = (selection: Selection) => this.ask<Totals>({ kind: 'totals', selection })
  sandwich = (request: SandwichRequest) => this.ask<{ callers: Tree, callees: Tree }>({ kind: 'sandwich', request })

  async find(text: string): Promise<Uint8Array> {
    const id = this.next
    let timer: ReturnType<typeof setTimeout> | undefined
    const late = new Promise<never>((_, fail) => {
      timer = setTimeout(() => fail(new TooSlow('the pattern takes too long')), PATIENCE_MS)
    })
    const found = this.ask<Uint8Array>({ kind: 'find', text })
    try {
      return await Promise.race([found, late])
    } catch (error) {
      if (error instanceof TooSlow) {
        found.catch(() => undefined)
        this.waiting.delete(id)
        this.restart()
      }
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  close(): void {
    this.worker.terminate()
    this.waiting.clear()
  }

  private start(): Worker {
    const worker = startWorker()
    worker.addEventListener('message', ({ data }: MessageEvent<Reply>) => {
      const request = this.waiting.get(data.id)
      this.waiting.delete(data.id)
      if (data.problem === undefined) request?.done(data.value)
      else request?.fail(new Error(data.problem))
    })
    worker.addEventListener('error', (event) => {
      for (const request of this.waiting.values()) request.fail(new Error(event.message || 'the worker could not be started'))
      this.waiting.clear()
    })
    return worker
  }

  /** Another worker, which is asked again for all that the first had not answered. */
  private restart(): void {
    this.worker.terminate()
    this.worker = this.start()
    if (this.columns) this.worker.postMessage({ id: -1, task: { kind: 'load', columns: this.columns } satisfies Task })
    for (const [id, { task }] of this.waiting) this.worker.postMessage({ id, task })
  }

  private ask<T>(task: Task, moved: Transferable[] = []): Promise<T> {
    const id = this.next++
    return new Promise<T>((done, fail) => {
      this.waiting.set(id, { done: done as (value: unknown) => void, fail, task })
      this.worker.postMessage({ id, task }, moved)
    })
  }
}

