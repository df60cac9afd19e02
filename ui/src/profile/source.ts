// Where profiles come from: the contract between the profile view and whatever shows it.

import type { Opened } from '../worker/client'

/** A profile that can be chosen. */
export interface WindowInfo {
  /** As in the API: `breach`, `before`, … */
  name: string
  /** For people. */
  label: string
  /** The events it can be shown for (`cpu`, `off-cpu`, `page-fault`), the one of the rule first. */
  events: string[]
  /** How many samples there are; unknown until it was loaded. */
  samples?: number
  /** Its length in milliseconds. */
  durationMs?: number
}

export interface FetchOptions {
  event?: string
  /** With the block of times. */
  times?: boolean
  signal?: AbortSignal
}

/** A snapshot that can be compared with. */
export interface OtherSnapshot {
  id: string
  /** For people. */
  label: string
  windows: string[]
}

/** Calls by how long they took: `upTo` in nanoseconds, ascending; only buckets with calls. */
export interface Histogram {
  /** The function. */
  title: string
  buckets: { from: number, upTo: number, calls: number }[]
  /** The rule's threshold in nanoseconds. */
  threshold?: number
  /** Named values in nanoseconds. */
  marks: { label: string, at: number }[]
  /** The share of the time in which calls were seen, from 0 to 1; counts are of what was seen. */
  attachedShare: number
}

export type DownloadFormat = 'pprof' | 'folded' | 'svg' | 'speedscope' | 'firefox' | 'html' | 'json'

/** Something that the reader has to know before believing the picture. */
export interface Caveat {
  text: string
  /** More, on several lines. */
  detail?: string
  /** Is it bad enough to doubt the shares? */
  serious: boolean
}

export interface ProfileSource {
  readonly title: string
  readonly windows: WindowInfo[]
  /** The window that is shown first. */
  readonly first: string
  /** What is missing from all windows: reasons and numbers. */
  readonly losses: [string, number][]
  /** Beside losses: duty cycles, sampling rates. */
  readonly caveats?: Caveat[]
  /** The function that explains the breach, if there is one. */
  readonly culprit?: { function: string }
  readonly histogram?: Histogram
  /** What was begun before there was a page; once. */
  takeBegun?(): Promise<Opened> | null
  /** In the binary form. */
  fetchFlamegraph(window: string, options: FetchOptions): Promise<ArrayBuffer>
  /** `a` and `b` are names of windows, or `ID:WINDOW` of another snapshot. */
  fetchDiff?(a: string, b: string, options: FetchOptions): Promise<ArrayBuffer>
  /** Other snapshots of the same target. */
  otherSnapshots?(): Promise<OtherSnapshot[]>
  /** The address of a download; undefined where it cannot be had. */
  downloadUrl?(window: string, format: DownloadFormat, options: { tid?: number, event?: string }): string | undefined
}
