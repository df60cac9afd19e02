// Names from targets, for people's eyes: what cannot be seen, or would change how the rest is read, is made visible.

// eslint-disable-next-line no-control-regex, no-misleading-character-class -- these are what is looked for
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]|[\ud800-\udfff]/gu

/** The name with `␀` for a zero byte, `⟨U+202E⟩` for what turns text around, and so on. */
export function visible(name: string): string {
  return name.replace(HIDDEN, (sign) => {
    const code = sign.codePointAt(0)!
    if (code < 0x20) return String.fromCodePoint(0x2400 + code)
    if (code === 0x7f) return '\u2421'
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, '0')}⟩`
  })
}

/** At most `most` letters of a visible name. */
export function cut(name: string, most: number): string {
  if (name.length <= most) return visible(name)
  return `${visible(name.slice(0, most))}…`
}

/** The last parts of a qualified name, without template arguments and parameters: for where the whole does not fit. */
export function tail(name: string): string {
  if (name.length > 4000 || !name.includes('::')) return name
  let depth = 0
  let kept = ''
  for (const sign of name) {
    const isOperator = kept.endsWith('operator') || kept.endsWith('operator(')
    if ((sign === '<' || sign === '(') && kept !== '' && !isOperator) depth++
    else if ((sign === '>' || sign === ')') && depth > 0) depth--
    else if (depth === 0) kept += sign
  }
  // What stands in front of the last space is the type of the result; behind it, ` const` and the like.
  const words = kept.trim().split(' ').filter((word) => word.includes('::'))
  const parts = (words.at(-1) ?? kept).split('::').filter((part) => part !== '')
  return parts.slice(-2).join('::') || name
}

/** The last part of a path. */
export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}
