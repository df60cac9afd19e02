// The tree that is shown as folded stacks: a line each, `caller;callee weight`, for flamegraph tools.

import type { Tree } from './layout'

/** `name` gives the name of a function. Names are put on one line, without the separators of the format. */
export function folded(tree: Tree, name: (fn: number) => string): string {
  const clean = new Map<number, string>()
  const of = (fn: number) => {
    let text = clean.get(fn)
    if (text === undefined) {
      text = name(fn).replace(/;/g, ':').replace(/\s+/g, ' ').trim() || '[unnamed]'
      clean.set(fn, text)
    }
    return text
  }
  const lines: string[] = []
  for (let node = 1; node < tree.fn.length; node++) {
    const weight = Math.round(tree.self[node]!)
    if (weight <= 0) continue
    const stack: string[] = []
    for (let at = node; at > 0; at = tree.parent[at]!) stack.push(of(tree.fn[at]!))
    lines.push(`${stack.reverse().join(';')} ${weight}\n`)
  }
  return lines.join('')
}
