// What there is to say about a frame: for the tip, and for those who hear it read.

import { formatPoints, formatShare, formatWeight } from './format'
import type { Tree } from './layout'
import { depthOf } from './layout'
import { cut } from './names'
import { fileOf, isOfRuntime, KIND, moduleOf, nameOf, type Profile } from './profile'
import type { Totals } from './totals'

const LONGEST = 500
const KINDS = ['', 'kernel', 'process', 'thread', 'stack cut', ''] as const

/** Where a function stands in its file; empty when unknown. */
export function placeOf({ columns }: Profile, fn: number): string {
  const file = fileOf(columns, fn)
  if (!file) return ''
  const line = columns.line[fn]!, lines = columns.lines[fn]!
  return file + (line ? `:${line}` : '') + (lines > 1 ? ` (hottest of ${lines} lines)` : '')
}

export function kindOf({ columns }: Profile, fn: number, inlined = false): string {
  const kind = KINDS[columns.kind[fn]!] ?? ''
  return [kind, isOfRuntime(columns, fn) ? 'runtime' : '', inlined ? 'inlined' : ''].filter(Boolean).join(', ')
}

export function describe(
  profile: Profile, tree: Tree, node: number, totals: Totals | null, zoom: number,
): { name: string, lines: string[], values: [string, string][] } {
  const { columns, unit, periodMs, against } = profile
  const fn = tree.fn[node]!
  const all = tree.total[0]!
  const lines = [placeOf(profile, fn), [moduleOf(columns, fn), kindOf(profile, fn, tree.inlined[node] === 1)].filter(Boolean).join(' · ')]
  const weighed = (weight: number, whole: number) => `${formatShare(weight, whole)} · ${formatWeight(weight, unit, periodMs)}`
  const values: [string, string][] = []
  const isFunction = columns.kind[fn]! <= KIND.kernel
  if (against && tree.otherTotal && tree.otherSelf) {
    const before = tree.otherTotal[0]!
    const points = (own: number, other: number) => 100 * (own / (all || 1) - other / (before || 1))
    values.push(['Now', weighed(tree.total[node]!, all)], ['Before', weighed(tree.otherTotal[node]!, before)])
    values.push(['Change', formatPoints(points(tree.total[node]!, tree.otherTotal[node]!))])
    if (totals?.otherTotal && totals.otherSelf && node > 0 && isFunction) {
      values.push(['Function', formatPoints(points(totals.total[fn]!, totals.otherTotal[fn]!))])
      values.push(['Itself', formatPoints(points(totals.self[fn]!, totals.otherSelf[fn]!))])
    }
  } else {
    values.push(['Total', weighed(tree.total[node]!, all)])
    if (tree.total[node] !== tree.self[node]) values.push(['Self', weighed(tree.self[node]!, all)])
    if (zoom > 0 && zoom !== node && isWithin(tree, node, zoom)) {
      values.push(['Of the zoom', formatShare(tree.total[node]!, tree.total[zoom]!)])
    }
    if (totals && node > 0 && isFunction) {
      values.push(['Function, total', weighed(totals.total[fn]!, totals.all)])
      values.push(['Function, self', weighed(totals.self[fn]!, totals.all)])
    }
  }
  return { name: cut(nameOf(columns, fn), LONGEST), lines: lines.filter(Boolean).map((line) => cut(line, LONGEST)), values }
}

/** One sentence for a screen reader. */
export function spoken(profile: Profile, tree: Tree, node: number): string {
  const fn = tree.fn[node]!
  const children = tree.first[node + 1]! - tree.first[node]!
  const kind = kindOf(profile, fn, tree.inlined[node] === 1)
  const parts = [cut(nameOf(profile.columns, fn), 120), formatShare(tree.total[node]!, tree.total[0]!)]
  if (kind) parts.push(kind)
  parts.push(`depth ${depthOf(tree, node)}`, children === 0 ? 'calls nothing' : `calls ${children}`)
  return parts.join(', ')
}

function isWithin(tree: Tree, node: number, above: number): boolean {
  while (node > above) node = tree.parent[node]!
  return node === above
}
