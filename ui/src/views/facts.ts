// Facts of a loaded profile that more than one view asks for.

import type { Scale, Tree } from '../profile/layout'
import { KIND, nameOf, type Profile } from '../profile/profile'

/** How much each node changed: from -1 (gone) to 1 (new). What is small either way is pale. */
export function changesOf(tree: Tree, { own, other }: Scale): Float32Array | null {
  const { otherTotal } = tree
  if (!otherTotal) return null
  const noise = (tree.total[0]! * own + otherTotal[0]! * other) * 0.004
  const changes = new Float32Array(tree.fn.length)
  for (let node = 0; node < changes.length; node++) {
    const now = tree.total[node]! * own, before = otherTotal[node]! * other
    changes[node] = (now - before) / (now + before + noise || 1)
  }
  return changes
}

/** The first function of a name; -1 where there is none. */
export function functionNamed({ columns }: Profile, name: string): number {
  for (let fn = 0; fn < columns.name.length; fn++) {
    if (columns.kind[fn]! <= KIND.kernel && nameOf(columns, fn).slice(0, 600) === name) return fn
  }
  return -1
}
