// Profiles of a stored snapshot, from the API.

import type {
  Caveat, DownloadFormat, FetchOptions, Histogram, OtherSnapshot, ProfileSource, WindowInfo,
} from './source'
import { formatBytes, formatTime } from './format'

/** What is needed of a sidecar. */
export interface SidecarLike {
  id: string
  target: string
  rule: string
  metric: string
  threshold: number
  unit: string
  function?: { name: string, row: RowLike } | null
  started_at: string
  exceeded_at: string
  breached_at: string
  ended_at: string
  culprits: { function: string }[]
  live?: { attached_share: number, sample_bytes: number } | null
  losses: Record<string, number>
  profiles: { window: string }[]
  other_threads?: { threads: number }
}

interface RowLike {
  min_ns?: number | null
  max_ns?: number | null
  p50_ns?: number | null
  p90_ns?: number | null
  p99_ns?: number | null
  attached_share: number
  load: number
  histogram?: { up_to_ns: number, calls: number }[]
}

/** Reads from an address; throws what a person can read. */
export interface Api {
  json: (path: string, signal?: AbortSignal) => Promise<unknown>
  bytes: (path: string, signal?: AbortSignal) => Promise<ArrayBuffer>
}

const ORDER = ['breach', 'before', 'after', 'baseline', 'live', 'dump']
const LABELS: Record<string, string> = {
  breach: 'Breach', before: 'Before', after: 'After', baseline: 'Baseline (calm)', live: 'In use', dump: 'Thread dump',
}
/** The steps of the time heatmap, in milliseconds. */
const STEP_MS = 50
const SNAPSHOTS = 20

export function apiSource(sidecar: SidecarLike, { json, bytes }: Api): ProfileSource {
  const base = `/api/v1/snapshots/${sidecar.id}/profile`
  const isMemory = sidecar.metric.includes('memory')
  const ms = (from: string, to: string) => Date.parse(to) - Date.parse(from)
  const durations: Record<string, number> = {
    before: ms(sidecar.started_at, sidecar.exceeded_at), breach: ms(sidecar.exceeded_at, sidecar.breached_at),
    after: ms(sidecar.breached_at, sidecar.ended_at),
  }
  const windows = ORDER.filter((name) => sidecar.profiles.some(({ window }) => window === name)).map((name): WindowInfo => {
    const durationMs = durations[name]
    const label = durationMs !== undefined && durationMs > 0 ? `${LABELS[name]!} · ${formatTime(durationMs)}` : LABELS[name]!
    return {
      name, label, events: isMemory && name !== 'live' && name !== 'dump' ? ['page-fault', 'cpu'] : [],
      ...(durationMs !== undefined && { durationMs }),
    }
  })
  const culprit = sidecar.culprits[0]
  const histogram = histogramOf(sidecar)
  const query = (parameters: Record<string, string | undefined>) => {
    const kept = Object.entries(parameters).filter((entry): entry is [string, string] => !!entry[1])
    return new URLSearchParams(kept).toString()
  }
  const stored = (window: string) => window.includes(':') ? window : `${sidecar.id}:${window}`
  return {
    title: `${sidecar.rule} of ${sidecar.target}`,
    windows,
    first: windows[0]?.name ?? 'breach',
    losses: Object.entries(sidecar.losses),
    caveats: caveatsOf(sidecar),
    ...(culprit && { culprit }),
    ...(histogram && { histogram }),
    fetchFlamegraph(window: string, { event, times, signal }: FetchOptions) {
      const asked = query({ format: 'packed', window, event, times: times ? String(STEP_MS) : '' })
      return bytes(`${base}?${asked}`, signal)
    },
    fetchDiff(a: string, b: string, { event, signal }: FetchOptions) {
      const asked = query({ a: stored(a), b: stored(b), event, format: 'packed' })
      return bytes(`/api/v1/diff?${asked}`, signal)
    },
    async otherSnapshots() {
      const asked = query({ target: sidecar.target, limit: String(SNAPSHOTS) })
      const list = await json(`/api/v1/snapshots?${asked}`) as
        { snapshots: { id: string, rule: string, breached_at: string, windows: string[] }[] }
      return list.snapshots.filter(({ id }) => id !== sidecar.id).map((one): OtherSnapshot => ({
        id: one.id, label: `${one.rule} · ${one.breached_at.slice(0, 19).replace('T', ' ')}`, windows: one.windows,
      }))
    },
    downloadUrl: (window: string, format: DownloadFormat, { tid, event }: { tid?: number, event?: string }) =>
      `${base}?${query({ format, window, event, thread: tid === undefined ? '' : String(tid) })}`,
  }
}

function caveatsOf({ live, other_threads: others, function: timed }: SidecarLike): Caveat[] {
  const caveats: Caveat[] = []
  if (live) {
    const share = Math.round(live.attached_share * 100)
    const detail = `One sample for ${formatBytes(live.sample_bytes)} on average. Only what was allocated while it was followed.`
    caveats.push(share < 100
      ? { text: `Memory in use: followed ${share}% of the time, scaled up`, detail: `${detail} What was freed in the rest of the time is estimated from how long objects of the same stack lived.`, serious: share < 90 }
      : { text: 'Memory in use since it was followed', detail, serious: false })
  }
  if (timed && timed.row.attached_share < 0.995) {
    const share = Math.round(timed.row.attached_share * 100)
    caveats.push({ text: `Calls seen ${share}% of the time, scaled up`, serious: share < 50 })
  }
  if (others && others.threads > 0) {
    caveats.push({ text: `${others.threads} quieter ${others.threads === 1 ? 'thread' : 'threads'} left out`, detail: 'Only the busiest threads were kept in the windows before, breach and after.', serious: false })
  }
  return caveats
}

function histogramOf({ function: timed, threshold, unit }: SidecarLike): Histogram | null {
  const steps = timed?.row.histogram
  if (!timed || !steps?.length) return null
  const { row } = timed
  const factor = { ns: 1, nanoseconds: 1, 'µs': 1e3, us: 1e3, microseconds: 1e3, ms: 1e6, milliseconds: 1e6, s: 1e9, seconds: 1e9 }[unit]
  const marks: [string, number | null | undefined][] =
    [['p50', row.p50_ns], ['p90', row.p90_ns], ['p99', row.p99_ns], ['max', row.max_ns]]
  return {
    title: timed.name,
    buckets: steps.map(({ up_to_ns: upTo, calls }) => ({ from: upTo / 2 ** 0.25, upTo, calls })),
    ...(factor !== undefined && { threshold: threshold * factor }),
    marks: marks.flatMap(([label, at]) => typeof at === 'number' ? [{ label, at }] : []),
    attachedShare: row.attached_share,
  }
}
