// The state of a view as it stands in the address, so that a link shows the same thing. Nothing here knows Vue.

/** All that can be in the address. What is the default is left out. */
export interface ViewState {
  /** Which view; empty for the one that the source begins with. */
  view: string
  /** Which window of the snapshot; empty for the source's first. */
  window: string
  /** What the diff is against: a window, or `ID:WINDOW`. */
  against: string
  /** Threads by id, joined by commas; empty for all. */
  thread: string
  event: string
  /** The search. */
  q: string
  /** The frame that is zoomed into, by its path. */
  frame: string
  /** The function of the sandwich. */
  func: string
  /** Callers instead of callees. */
  invert: boolean
  /** The root at the bottom. */
  flame: boolean
  /** Recursion as one frame. */
  collapse: boolean
  nokernel: boolean
  /** Frames of runtimes as one. */
  noruntime: boolean
  /** The diff in units a second rather than shares. */
  absolute: boolean
  /** The sort of tables: a column, with `-` in front for ascending. */
  sort: string
  /** Selected stretch of time, in milliseconds from the start of the window; negative for none. */
  from: number
  to: number
}

export const DEFAULTS: Readonly<ViewState> = Object.freeze({
  view: '', window: '', against: '', thread: '', event: '', q: '', frame: '', func: '', invert: false, flame: false,
  collapse: false, nokernel: false, noruntime: false, absolute: false, sort: '', from: -1, to: -1,
})

type Key = keyof ViewState
const KEYS = Object.keys(DEFAULTS) as Key[]
/** Longer values are cut: an address has its limits. */
const LONGEST = 600

/** Reads a state out of a query; what makes no sense is the default. */
export function parseState(query: string): ViewState {
  const parameters = new URLSearchParams(query)
  const state: Record<string, unknown> = { ...DEFAULTS }
  for (const key of KEYS) {
    const text = parameters.get(key)
    if (text === null) continue
    const usual = DEFAULTS[key]
    if (typeof usual === 'boolean') state[key] = text === '1' || text === 'true'
    else if (typeof usual === 'number') {
      const number = Number(text)
      if (text !== '' && Number.isFinite(number) && number >= 0) state[key] = number
    } else state[key] = text.slice(0, LONGEST)
  }
  return state as unknown as ViewState
}

/** The query of a state; `rest` has other parameters, which are kept. */
export function formatState(state: ViewState, rest = ''): string {
  const parameters = new URLSearchParams(rest)
  for (const key of KEYS) {
    const value = state[key]
    if (value === DEFAULTS[key]) parameters.delete(key)
    else parameters.set(key, value === true ? '1' : String(value).slice(0, LONGEST))
  }
  return parameters.toString()
}

/** The state in the address of this page. */
export interface UrlState {
  get(): ViewState
  /** Changes it; `push` makes a step that the browser's back button undoes. */
  set(change: Partial<ViewState>, push?: boolean): void
  /** Calls `listener` after every change, be it by `set` or by the browser; returns what ends that. */
  listen(listener: (state: ViewState) => void): () => void
  /** How many steps back there are that this page made. */
  depth(): number
  close(): void
}

/** Told to the window when a state has changed the address. */
const CHANGED = 'probe:address'

/** `hash` keeps it behind the #, for pages that are files. */
export function urlState(where: 'query' | 'hash' = 'query', target: Window = window): UrlState {
  const read = () => parseState(where === 'query' ? target.location.search : target.location.hash.slice(1))
  let state = read()
  const listeners = new Set<(state: ViewState) => void>()
  const tell = () => listeners.forEach((listener) => listener(state))
  const onPop = () => {
    state = read()
    tell()
  }
  target.addEventListener('popstate', onPop)
  // Other parts of the page have a state of their own over the same address.
  let isOwn = false
  const onOther = () => {
    if (!isOwn) onPop()
  }
  target.addEventListener(CHANGED, onOther)
  const depth = () => (target.history.state as { probeDepth?: number } | null)?.probeDepth ?? 0
  return {
    get: () => state,
    set(change, push = false) {
      const next = { ...state, ...change }
      if (KEYS.every((key) => next[key] === state[key])) return
      state = next
      const { pathname, search, hash } = target.location
      const url = where === 'query'
        ? pathname + prefixed('?', formatState(state, search)) + hash
        : `${search}#${formatState(state, hash.slice(1))}`
      // A router keeps the present address in its own state, and would put an earlier one back.
      const old = (target.history.state ?? {}) as { current?: unknown, position?: unknown }
      const kept: Record<string, unknown> & { current?: unknown } = { ...old, probeDepth: depth() + (push ? 1 : 0) }
      if (typeof old.current === 'string' && where === 'query') {
        if (push) Object.assign(kept, { back: old.current, forward: null, position: Number(old.position ?? 0) + 1 })
        kept.current = url
      }
      target.history[push ? 'pushState' : 'replaceState'](kept, '', url)
      tell()
      isOwn = true
      target.dispatchEvent(new Event(CHANGED))
      isOwn = false
    },
    listen(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    depth,
    close() {
      target.removeEventListener('popstate', onPop)
      target.removeEventListener(CHANGED, onOther)
      listeners.clear()
    },
  }
}

function prefixed(prefix: string, text: string): string {
  return text ? prefix + text : ''
}
