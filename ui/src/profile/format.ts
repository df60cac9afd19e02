// Numbers for people: weights with their units, shares, times.

import type { Unit } from './json'

const integer = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

export function formatInteger(number: number): string {
  return integer.format(number)
}

/** A number of things: `1 sample`, `2 samples`. */
export function formatNumber(number: number, one: string, many = `${one}s`): string {
  return `${formatInteger(number)} ${number === 1 ? one : many}`
}

/** Milliseconds, in what is handy. */
export function formatTime(ms: number): string {
  const size = Math.abs(ms)
  if (size >= 60000) return `${(ms / 60000).toFixed(1)} min`
  if (size >= 1000) return `${(ms / 1000).toFixed(2)} s`
  if (size >= 1) return `${ms.toFixed(1)} ms`
  return size >= 0.001 || size === 0 ? `${(ms * 1000).toFixed(0)} µs` : `${(ms * 1e6).toFixed(0)} ns`
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let at = 0
  while (Math.abs(bytes) >= 1024 && at < units.length - 1) {
    bytes /= 1024
    at++
  }
  return `${at ? bytes.toFixed(1) : String(Math.round(bytes))} ${units[at]!}`
}

/** A weight with its unit, and the CPU time that it stands for. */
export function formatWeight(weight: number, unit: Unit, periodMs: number): string {
  if (unit === 'microseconds') return formatTime(weight / 1000)
  if (unit === 'bytes') return formatBytes(weight)
  const samples = `${integer.format(weight)} ${weight === 1 ? 'sample' : 'samples'}`
  return periodMs > 0 ? `${samples} ≈ ${formatTime(weight * periodMs)}` : samples
}

/** A weight in few letters, for tables. */
export function formatShort(weight: number, unit: Unit): string {
  if (unit === 'microseconds') return formatTime(weight / 1000)
  return unit === 'bytes' ? formatBytes(weight) : integer.format(weight)
}

export function formatShare(part: number, whole: number): string {
  return formatPercent(whole > 0 ? (100 * part) / whole : 0)
}

export function formatPercent(percent: number): string {
  const size = Math.abs(percent)
  return `${percent.toFixed(size >= 99.95 || size === 0 ? 0 : size < 0.095 ? 3 : size < 10 ? 2 : 1)}%`
}

/** A change in percentage points, with its sign. */
export function formatPoints(points: number): string {
  const size = Math.abs(points)
  const sign = size < 0.005 ? '±' : points > 0 ? '+' : '−'
  return `${sign}${size.toFixed(size < 10 ? 2 : 1)} pp`
}
