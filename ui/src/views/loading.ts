// Profiles that were loaded: the last few are kept, each with what lays it out.

import type { Opened } from '../worker/client'

/** Back and forth between two windows and their comparison asks nothing twice. */
const KEPT = 4

export class Loader {
  private readonly cache = new Map<string, Promise<Opened>>()

  /** What is kept under one of the keys, else what is opened, which is kept under the first. */
  load([key, ...others]: readonly [string, ...string[]], open: () => Promise<Opened>): Promise<Opened> {
    for (const one of [key, ...others]) {
      const known = this.cache.get(one)
      if (known) return known
    }
    const promise = open()
    this.cache.set(key, promise)
    promise.catch(() => this.forget(key))
    // The oldest goes, and its worker with it.
    for (const [old, gone] of this.cache) {
      if (this.cache.size <= KEPT) break
      if (old === key) continue
      this.cache.delete(old)
      close(gone)
    }
    return promise
  }

  forget(key: string): void {
    this.cache.delete(key)
  }

  empty(): void {
    for (const gone of this.cache.values()) close(gone)
    this.cache.clear()
  }
}

function close(gone: Promise<Opened>): void {
  gone.then(({ backend: unused }) => unused.close(), () => undefined)
}
