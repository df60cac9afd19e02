/** What is missing, in the words that every page has for it: what is lost is not there at all; the rest is there and lacks
 *  something. */

export type LossKind = 'lost' | 'cut' | 'guessed' | 'unnamed' | 'derived' | 'other'

export interface Loss { kind: LossKind, count: number, reasons: [string, number][] }

export const LOSS_WORDS: Record<LossKind, { short: string, long: string }> = {
  lost: { short: 'lost', long: 'Lost: not in the profile at all' },
  cut: { short: 'cut', long: 'Cut: the callers are not known' },
  guessed: { short: 'guessed', long: 'Guessed: callers found by frame pointers' },
  unnamed: { short: 'without a name', long: 'Without a name: no symbols for some frames' },
  derived: { short: 'derived', long: 'Derived: callers found by the instructions of code that has no unwind tables' },
  other: { short: 'incomplete', long: 'Incomplete' },
}

/** What a reason of the collector means. */
export function kindOf(reason: string): LossKind {
  if (/unnamed|without (a )?name/.test(reason)) return 'unnamed'
  if (/truncated/.test(reason)) return 'cut'
  if (/derived/.test(reason)) return 'derived'
  if (/guess/.test(reason)) return 'guessed'
  if (/\blost\b|dropped|\bfull\b|throttled|\bmissed\b/.test(reason)) return 'lost'
  return 'other'
}

/** Losses by kind, what is lost first; none of those that there are not. */
export function byKind(losses: Iterable<[string, number]>): Loss[] {
  const kinds = new Map<LossKind, Loss>()
  for (const [reason, count] of losses) {
    if (count <= 0) continue
    const kind = kindOf(reason)
    const loss = kinds.get(kind) ?? { kind, count: 0, reasons: [] }
    loss.count += count
    loss.reasons.push([reason, count])
    kinds.set(kind, loss)
  }
  const order = Object.keys(LOSS_WORDS) as LossKind[]
  return order.flatMap((kind) => kinds.get(kind) ?? [])
}
