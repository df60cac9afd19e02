// What is live, shared by all pages: what fires, whether events arrive, and a short history of each process's metrics.

import { computed, reactive, ref, watch } from 'vue'

import { api, getJson } from '@/api/client'
import { listen } from '@/api/events'
import { generation } from '@/api/token'
import type { Event, Firing, Status, TargetState } from '@/api/types'

import { coalesce } from './coalesce'

export type Mode = 'daemon' | 'store' | 'profile'

/** What the server says in the page that it is about. */
export const mode: Mode = (document.documentElement.dataset['mode'] ?? 'daemon') as Mode

/** Do events arrive? `undefined` until that is known. */
export const connected = ref<boolean>()
export const status = ref<Status>()
/** The latest events, newest first. */
export const events = ref<Event[]>([])
export const firing = computed<Firing[]>(() => status.value?.firing ?? [])

const KEPT_EVENTS = 200
/** Between two questions for the status, and how long one may take, in milliseconds. */
const PAUSE = 250
const PATIENCE = 10_000

let isStarted = false

/** Begins to listen, for as long as the page is open. */
export function start(): void {
  if (isStarted || mode !== 'daemon') return
  isStarted = true
  refresh()
  setInterval(() => {
    if (document.visibilityState === 'visible') refresh()
  }, 5000)
  let end = open()
  watch(generation, () => {
    end()
    end = open()
    refresh()
  })
}

function open(): () => void {
  return listen({
    event(event) {
      events.value = [event, ...events.value].slice(0, KEPT_EVENTS)
      refresh()
    },
    missed: refresh,
    connected: (is) => (connected.value = is),
  })
}

/** Hundreds of events may come at once. Where it fails, `connected` says so, and the page of each question its own reason. */
const refresh = coalesce(async () => {
  status.value = await getJson<Status>(api(['status']), AbortSignal.timeout(PATIENCE))
}, PAUSE)

/** How many values of a metric are kept: two minutes at one every two seconds. */
const LENGTH = 60
const histories = reactive(new Map<string, number[]>())

/** Takes in what the targets measure now. */
export function remember(targets: TargetState[]): void {
  const seen = new Set<string>()
  for (const target of targets) {
    for (const process of target.processes) {
      for (const [metric, value] of Object.entries(process.metrics)) {
        const key = keyOf(process.pid, metric)
        seen.add(key)
        histories.set(key, [...(histories.get(key) ?? []), value].slice(-LENGTH))
      }
    }
  }
  for (const key of histories.keys()) if (!seen.has(key)) histories.delete(key)
}

export function historyOf(pid: number, metric: string): number[] {
  return histories.get(keyOf(pid, metric)) ?? []
}

function keyOf(pid: number, metric: string): string {
  return `${pid} ${metric}`
}
