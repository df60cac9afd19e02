// What the profile view shows, out of its source and the state in the address: profiles are fetched, trees asked for, and
// what comes too late is dropped.

import { computed, onScopeDispose, ref, shallowRef, watch, type Ref, type ShallowRef } from 'vue'

import type { Picture } from '../chart/chart'
import type { Frames } from '../profile/grow'
import type { Scale, Tree } from '../profile/layout'
import { RUNNING, type Profile } from '../profile/profile'
import { found, type Found, query } from '../profile/search'
import type { Selection } from '../profile/select'
import type { ProfileSource } from '../profile/source'
import type { Totals } from '../profile/totals'
import type { ViewState } from '../state'
import { open, type Opened } from '../worker/client'
import { changesOf, functionNamed } from './facts'
import { Loader } from './loading'

export function useSession(source: Ref<ProfileSource>, state: Ref<ViewState>) {
  const loaded: ShallowRef<Opened | null> = shallowRef(null)
  const picture: ShallowRef<Picture | null> = shallowRef(null)
  const callers: ShallowRef<Picture | null> = shallowRef(null)
  const callees: ShallowRef<Picture | null> = shallowRef(null)
  const totals: ShallowRef<Totals | null> = shallowRef(null)
  const hits: ShallowRef<Uint8Array | null> = shallowRef(null)
  const searchProblem = ref('')
  const error = ref('')
  const loading = ref(false)
  const loader = new Loader()

  const isDiff = computed(() => state.value.view === 'diff')
  const window = computed(() => known(state.value.window) ? state.value.window : source.value.first)
  const known = (name: string) => source.value.windows.some((one) => one.name === name)
  const against = computed(() => {
    const { against: asked } = state.value
    if (asked.includes(':') || (asked !== window.value && known(asked))) return asked
    const usual = ['baseline', 'before', 'breach', 'after'].find((name) => name !== window.value && known(name))
    return usual ?? ''
  })
  const event = computed(() => {
    const events = source.value.windows.find(({ name }) => name === window.value)?.events ?? []
    return events.includes(state.value.event) ? state.value.event : events[0] ?? ''
  })
  const wantsTimes = computed(() => state.value.view === 'heat' || state.value.from >= 0)
  const shownWindow = computed(() => state.value.view === 'dump' && known('dump') ? 'dump' : window.value)

  const key = computed(() => isDiff.value
    ? `diff ${against.value} ${window.value} ${event.value}`
    : `one ${shownWindow.value} ${event.value} ${wantsTimes.value ? 'times' : ''}`)

  function load(wanted: string): Promise<Opened> {
    const options = { ...(event.value && { event: event.value }), times: wantsTimes.value }
    const from = source.value
    // What has times has the rest as well.
    return loader.load(wanted.endsWith(' ') ? [wanted, `${wanted}times`] : [wanted], () => {
      if (!isDiff.value) return from.takeBegun?.() ?? open(from.fetchFlamegraph(shownWindow.value, options))
      if (from.fetchDiff && against.value) return open(from.fetchDiff(against.value, window.value, options), 'two')
      return Promise.reject(new Error('there is nothing to compare with'))
    })
  }

  // Before it is asked: windows of another source have the same names.
  watch(source, () => loader.empty())
  watch([key, source], async ([wanted]) => {
    loading.value = true
    error.value = ''
    try {
      const result = await load(wanted)
      if (key.value !== wanted) return
      picture.value = callers.value = callees.value = null
      totals.value = hits.value = null
      loaded.value = result
    } catch (problem) {
      if (key.value !== wanted) return
      loaded.value = null
      picture.value = null
      error.value = problem instanceof Error ? problem.message : String(problem)
    } finally {
      if (key.value === wanted) loading.value = false
    }
  }, { immediate: true })
  const profile = computed(() => loaded.value?.profile ?? null)

  /** Events that the loaded profile has side by side. */
  const mixes = computed(() => profile.value !== null && profile.value.event.includes(',') && profile.value.states.length > 1)

  const selection = computed((): Selection => {
    const { thread, from, to, event: chosen } = state.value
    const one = profile.value
    const tids = new Set(thread.split(',').filter(Boolean))
    const threads = one && tids.size && !isDiff.value
      ? one.threads.flatMap(({ tid }, at) => tids.has(String(tid)) ? [at] : [])
      : null
    let states: number[] | null = null
    if (one && mixes.value && (chosen === 'cpu' || chosen === 'off-cpu')) {
      states = one.states.flatMap((name, at) => (name === RUNNING) === (chosen === 'cpu') ? [at] : [])
    }
    const time = from >= 0 && to > from && one?.columns.times ? { from, to } : null
    return { threads: threads?.length ? threads : null, states, time }
  })

  const scale = computed((): Scale => {
    const one = profile.value
    if (!one?.against) return { own: 1, other: 0 }
    if (state.value.absolute && one.durationMs > 0 && one.against.durationMs > 0) {
      return { own: 1000 / one.durationMs, other: 1000 / one.against.durationMs }
    }
    return { own: 1 / (one.total || 1), other: 1 / (one.against.total || 1) }
  })

  const frames = computed((): Frames => ({
    collapse: state.value.collapse, nokernel: state.value.nokernel, noruntime: state.value.noruntime,
  }))

  const pictured = (of: Profile, tree: Tree): Picture => ({ tree, columns: of.columns, change: changesOf(tree, scale.value) })

  watch([loaded, selection, frames, scale, () => state.value.invert], async () => {
    const now = loaded.value
    if (!now) return
    const request = { selection: plain(selection.value), frames: plain(frames.value), invert: state.value.invert, scale: plain(scale.value) }
    await guarded(now, () => now.backend.tree(request), (tree) => { picture.value = pictured(now.profile, tree) })
  }, { immediate: true, deep: true })

  watch([loaded, selection], async () => {
    const now = loaded.value
    if (now) await guarded(now, () => now.backend.totals(plain(selection.value)), (value) => { totals.value = value })
  }, { immediate: true, deep: true })

  /** The function of the sandwich. */
  const middle = computed(() => {
    const one = profile.value
    return one && state.value.func ? functionNamed(one, state.value.func) : -1
  })

  watch([loaded, selection, scale, middle, () => state.value.view], async () => {
    const now = loaded.value
    if (state.value.view !== 'sandwich' || !now || middle.value < 0) {
      callers.value = callees.value = null
      return
    }
    const request = { selection: plain(selection.value), fn: middle.value, scale: plain(scale.value) }
    await guarded(now, () => now.backend.sandwich(request), (both) => {
      callers.value = pictured(now.profile, both.callers)
      callees.value = pictured(now.profile, both.callees)
    })
  }, { immediate: true, deep: true })

  let searches = 0
  watch([loaded, () => state.value.q], async () => {
    const now = loaded.value
    const text = state.value.q
    const turn = ++searches
    if (!now || !text) {
      hits.value = null
      searchProblem.value = ''
      return
    }
    const { problem } = query(text)
    try {
      const result = await now.backend.find(text)
      if (turn !== searches) return
      hits.value = result
      searchProblem.value = problem && `Searched as text: ${problem}`
    } catch (slow) {
      if (turn !== searches) return
      hits.value = null
      searchProblem.value = slow instanceof Error ? capital(slow.message) : ''
    }
  }, { immediate: true })

  const matched = computed((): Found | null => {
    const now = picture.value
    return now && hits.value ? found(now.tree, hits.value) : null
  })

  async function guarded<T>(of: Opened, ask: () => Promise<T>, take: (value: T) => void): Promise<void> {
    try {
      const value = await ask()
      if (loaded.value === of) take(value)
    } catch (problem) {
      if (loaded.value === of) error.value = problem instanceof Error ? problem.message : String(problem)
    }
  }

  onScopeDispose(() => loader.empty())

  return {
    window, shownWindow, against, event, profile, picture, callers, callees, middle, totals, hits, matched, searchProblem,
    error, loading, selection, mixes, isDiff,
    /** Tries again what failed. */
    retry: () => {
      const wanted = key.value
      loader.forget(wanted)
      error.value = ''
      loading.value = true
      load(wanted).then((result) => {
        if (key.value !== wanted) return
        loaded.value = result
        loading.value = false
      }, (problem: unknown) => {
        if (key.value !== wanted) return
        error.value = problem instanceof Error ? problem.message : String(problem)
        loading.value = false
      })
    },
  }
}

export type Session = ReturnType<typeof useSession>

/** A copy without proxies, which a worker can be handed. */
function plain<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
