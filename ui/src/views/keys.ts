// The keys of the profile view: those of speedscope and of the Firefox Profiler where these agree.

import { onBeforeUnmount, onMounted, type Ref } from 'vue'

/** What keys do. Each key of `act` that is not a letter of the chart's own stands in the list of keys (`KeysDialog.vue`). */
export interface Acts {
  /** By what the key types. */
  keys: Record<string, () => void>
  /** Shows the view of a number. */
  view: (number: number) => boolean
  search: () => void
  /** Is it the search field? */
  isSearch: (target: EventTarget | null) => boolean
  /** Ends the search; false if there was none. */
  clear: () => boolean
  next: (step: 1 | -1) => void
  /** Zooms out; false if nothing was zoomed into. */
  reset: () => boolean
  /** Gives the focus to the picture. */
  leave: () => void
  /** Keys of the picture, while nothing has the focus. */
  chart: (event: KeyboardEvent) => void
  /** Is something open that has the keys for itself? */
  isBusy: () => boolean
}

/** Listens for as long as the component is there: to keys in `root`, and to those that nothing else takes. */
export function useKeys(root: Ref<HTMLElement | null>, acts: Acts): void {
  function onKey(event: KeyboardEvent): void {
    const target = event.target as HTMLElement | null
    if (acts.isBusy() || event.defaultPrevented) return
    const isInside = target !== null && (target === document.body || (root.value?.contains(target) ?? false))
    if (!isInside) return
    if ((event.ctrlKey || event.metaKey) && event.key === 'f' && target !== document.body) {
      event.preventDefault()
      acts.search()
      return
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const isTyping = target.matches('input, select, textarea')
    if (event.key === 'Escape') {
      const isDone = acts.clear() || (!isTyping && acts.reset())
      if (!isDone && !isTyping) return
      if (isTyping) acts.leave()
      event.preventDefault()
      return
    }
    if (isTyping) {
      if (event.key === 'Enter' && acts.isSearch(target)) acts.next(event.shiftKey ? -1 : 1)
      return
    }
    if (/^[1-9]$/.test(event.key) ? acts.view(Number(event.key)) : run(event.key)) {
      event.preventDefault()
    } else if (target === document.body && 'wasd+-='.includes(event.key.toLowerCase())) acts.chart(event)
  }

  function run(key: string): boolean {
    if (!Object.hasOwn(acts.keys, key)) return false
    acts.keys[key]?.()
    return true
  }

  onMounted(() => document.addEventListener('keydown', onKey))
  onBeforeUnmount(() => document.removeEventListener('keydown', onKey))
}
