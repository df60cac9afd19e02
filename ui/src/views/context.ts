// What the parts of the profile view share: the source, the state in the address, and what is shown of both.

import { computed, inject, type ComputedRef, type InjectionKey, type Ref } from 'vue'

import { formatShare } from '../profile/format'
import { cut } from '../profile/names'
import type { ProfileSource } from '../profile/source'
import type { ViewState } from '../state'
import type { Session } from './session'

export interface ViewTab {
  id: string
  label: string
  has: boolean
}

export interface ProfileContext {
  source: Ref<ProfileSource>
  state: Ref<ViewState>
  /** Changes the state; `push` makes a step that the browser's back button undoes. */
  set: (change: Partial<ViewState>, push?: boolean) => void
  session: Session
  /** All views, in the order of their keys. */
  views: ComputedRef<ViewTab[]>
  /** The view that is shown. */
  view: ComputedRef<string>
  /** Shows a view. */
  choose: (id: string) => void
  /** Shows the flamegraph, zoomed into a frame by its path. */
  zoom: (frame: string) => void
  /** Is it a view of one tree, with frames to zoom into? */
  hasTree: ComputedRef<boolean>
  /** The thread that is shown alone, of those that there are; empty for all. */
  thread: ComputedRef<string>
  /** Threads of the profile, the heaviest first. */
  threads: ComputedRef<{ tid: string, name: string, share: string }[]>
}

export const PROFILE: InjectionKey<ProfileContext> = Symbol('profile')

/** The context of the profile view that the component is a part of. */
export function useProfile(): ProfileContext {
  const context = inject(PROFILE)
  if (!context) throw new Error('this is no part of a profile view')
  return context
}

export function profileContext(
  source: Ref<ProfileSource>, state: Ref<ViewState>, set: ProfileContext['set'], session: Session,
): ProfileContext {
  const views = computed((): ViewTab[] => {
    const { windows, histogram } = source.value
    return [
      { id: 'flame', label: 'Flamegraph', has: true },
      { id: 'diff', label: 'Diff', has: 'fetchDiff' in source.value && windows.length > 0 },
      { id: 'sandwich', label: 'Sandwich', has: true },
      { id: 'top', label: 'Top', has: true },
      { id: 'tree', label: 'Tree', has: true },
      { id: 'dump', label: 'Threads', has: windows.some(({ name }) => name === 'dump') },
      { id: 'heat', label: 'Time', has: true },
      { id: 'latency', label: 'Latency', has: !!histogram },
    ]
  })
  const usual = computed(() => source.value.first === 'dump' ? 'dump' : 'flame')
  const view = computed(() => views.value.find(({ id, has }) => has && id === state.value.view)?.id ?? usual.value)
  const threads = computed(() => {
    const profile = session.profile.value
    if (!profile || session.isDiff.value) return []
    const weight = new Float64Array(profile.threads.length)
    const { weights } = profile.columns
    weights.thread.forEach((thread, at) => { weight[thread] = (weight[thread] ?? 0) + (weights.weight[at] ?? 0) })
    return profile.threads.map(({ tid, name }, at) => ({ tid: String(tid), name: cut(name, 40) || 'thread', weight: weight[at] ?? 0 }))
      .sort((a, b) => b.weight - a.weight)
      .map((one) => ({ tid: one.tid, name: one.name, share: formatShare(one.weight, profile.total) }))
  })
  return {
    source, state, set, session, views, view, threads,
    // The view that a source begins with is not in the address.
    choose: (id) => set({ view: id === usual.value ? '' : id, frame: '' }, true),
    zoom: (frame) => set({ frame, view: usual.value === 'flame' ? '' : 'flame' }, true),
    hasTree: computed(() => ['flame', 'diff', 'heat'].includes(view.value)),
    thread: computed(() => threads.value.some(({ tid }) => tid === state.value.thread) ? state.value.thread : ''),
  }
}
