// Many texts as one: there may be hundreds of thousands, and most are never looked at.

export interface Texts {
  all: string
  /** Where each ends in `all`. */
  ends: Uint32Array
}

export function textAt({ all, ends }: Texts, at: number): string {
  return all.slice(at > 0 ? ends[at - 1] : 0, ends[at])
}

export function joined(list: string[]): Texts {
  const ends = new Uint32Array(list.length)
  let end = 0
  list.forEach((text, at) => { ends[at] = end += text.length })
  return { all: list.join(''), ends }
}

/** The same with more behind. */
export function extended(texts: Texts, more: string[]): Texts {
  const added = joined(more)
  const ends = new Uint32Array(texts.ends.length + more.length)
  ends.set(texts.ends)
  added.ends.forEach((end, at) => { ends[texts.ends.length + at] = texts.all.length + end })
  return { all: texts.all + added.all, ends }
}
