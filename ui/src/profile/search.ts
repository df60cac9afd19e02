// Search: which functions a regular expression finds, and how much of the weight has one of them on its stack.

import type { Columns } from './profile'
import { functionCount, nameOf } from './profile'
import type { Tree } from './layout'

/** What was asked for, as it is searched. */
export interface Query {
  text: string
  /** `null` where the text is no pattern, and is searched for as it stands. */
  pattern: RegExp | null
  /** Why it is no pattern. */
  problem: string
}

export function query(text: string): Query {
  for (const flags of ['iu', 'i']) {
    try {
      return { text, pattern: new RegExp(text, flags), problem: '' }
    } catch (error) {
      if (flags === 'i') {
        const why = error instanceof Error ? error.message.replace(/^Invalid regular expression: /, '') : ''
        return { text, pattern: null, problem: why || 'it is no regular expression' }
      }
    }
  }
  throw new Error('unreachable')
}

/** Text as a pattern that finds just it. */
export function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
}

/** Might it take forever on some text? A repetition within a repetition can; so can a back reference. */
export function isRisky(pattern: string): boolean {
  const text = pattern.replace(/\\[^1-9k]/g, 'x').replace(/\[[^\]]*\]/g, 'x')
  if (/\\[1-9k]/.test(text)) return true
  const open: boolean[] = []
  let repeats = 0
  for (let at = 0; at < text.length; at++) {
    const sign = text[at]!
    const repeat = sign === '*' || sign === '+' || (sign === '{' && /^\{\d*,?\d*\}/.test(text.slice(at)))
    if (sign === '(') open.push(false)
    else if (sign === ')') {
      const within = open.pop() ?? false
      const after = text[at + 1] ?? ''
      if (within && (after === '*' || after === '+' || after === '{')) return true
      if (within && open.length) open[open.length - 1] = true
    } else if (repeat || sign === '|') {
      if (repeat && ++repeats > 6) return true
      if (open.length) open[open.length - 1] = true
    }
  }
  return false
}

/** 1 for the functions that are found. Names are looked at up to `longest` letters. */
export function find(columns: Columns, text: string, longest = 20000): Uint8Array {
  const { pattern } = query(text)
  const lower = text.toLowerCase()
  const hits = new Uint8Array(functionCount(columns))
  for (let fn = 0; fn < hits.length; fn++) {
    if (columns.kind[fn] === 5) continue
    const name = nameOf(columns, fn).slice(0, longest)
    if (pattern ? pattern.test(name) : name.toLowerCase().includes(lower)) hits[fn] = 1
  }
  return hits
}

/** What was found in a tree. */
export interface Found {
  /** Weight with a found function on its stack; each stack counts once. */
  weight: number
  /** Nodes that are found. */
  nodes: number
}

export function found(tree: Tree, hits: Uint8Array): Found {
  const covered = new Uint8Array(tree.fn.length)
  let weight = 0, nodes = 0
  for (let node = 0; node < covered.length; node++) {
    const hit = hits[tree.fn[node]!]
    if (hit) nodes++
    if (node > 0 && covered[tree.parent[node]!]) covered[node] = 1
    else if (hit) {
      covered[node] = 1
      weight += tree.total[node]!
    }
  }
  return { weight, nodes }
}

/** The next node that is found, level by level, after `from`; before it where `step` is -1. */
export function nextHit(tree: Tree, hits: Uint8Array, from: number, step: 1 | -1): number {
  const count = tree.fn.length
  for (let moved = 1; moved <= count; moved++) {
    const node = (((from + step * moved) % count) + count) % count
    if (hits[tree.fn[node]!]) return node
  }
  return -1
}
