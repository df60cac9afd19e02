// Asking the API from a page: again and again, and what came of it.

import { onScopeDispose, ref, shallowRef, watch, type Ref } from 'vue'

import { asProblem, type Problem } from '@/api/client'
import { generation } from '@/api/token'

export interface Asked<T> {
  value: Ref<T | undefined>
  problem: Ref<Problem | undefined>
  /** Under way for the first time, or after `key` changed. */
  loading: Ref<boolean>
  again: () => Promise<void>
}

export interface How {
  /** Ask again so many milliseconds after each answer, while the page can be seen. */
  every?: number
  /** Forget the answer and ask anew when this changes. */
  key?: () => unknown
}

/** Asks now, and again as `how` says, until the component goes. */
export function ask<T>(question: (signal: AbortSignal) => Promise<T>, how: How = {}): Asked<T> {
  const value: Ref<T | undefined> = shallowRef()
  const problem = ref<Problem>()
  const loading = ref(true)
  let current = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  let over = false

  async function again(): Promise<void> {
    clearTimeout(timer)
    current.abort()
    const mine = (current = new AbortController())
    try {
      const answer = await question(mine.signal)
      if (mine.signal.aborted) return
      value.value = answer
      problem.value = undefined
    } catch (error) {
      if (mine.signal.aborted) return
      problem.value = asProblem(error)
    }
    loading.value = false
    if (how.every !== undefined && !over) timer = setTimeout(() => void tick(), how.every)
  }

  // A page in the background asks nothing.
  async function tick(): Promise<void> {
    if (document.visibilityState === 'visible') await again()
  }
  const onVisible = () => {
    if (how.every !== undefined && document.visibilityState === 'visible') void again()
  }
  document.addEventListener('visibilitychange', onVisible)
  watch(generation, () => void again())
  if (how.key) {
    watch(how.key, () => {
      value.value = undefined
      problem.value = undefined
      loading.value = true
      void again()
    })
  }
  onScopeDispose(() => {
    over = true
    clearTimeout(timer)
    current.abort()
    document.removeEventListener('visibilitychange', onVisible)
  })
  void again()
  return { value, problem, loading, again }
}
