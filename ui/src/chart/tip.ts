// What is known of a frame, next to the pointer. Everything is text.

export interface Facts {
  name: string
  /** File and line, module, kind. */
  lines: string[]
  /** Labels and values. */
  values: [string, string][]
}

export class Tip {
  readonly element = document.createElement('div')

  constructor(parent: HTMLElement = document.body) {
    this.element.className = 'chart-tip'
    this.element.setAttribute('role', 'tooltip')
    this.element.hidden = true
    parent.append(this.element)
  }

  show({ name, lines, values }: Facts, x: number, y: number): void {
    const heading = made('b', name)
    const list = document.createElement('dl')
    for (const [label, value] of values) list.append(made('dt', label), made('dd', value))
    this.element.replaceChildren(heading, ...lines.map((line) => made('p', line)), list)
    this.element.hidden = false
    const { width, height } = this.element.getBoundingClientRect()
    const left = x + 14 + width > innerWidth - 6 ? x - width - 10 : x + 14
    const top = y + 16 + height > innerHeight - 6 ? y - height - 10 : y + 16
    this.element.style.left = `${Math.max(6, Math.min(left, innerWidth - width - 6))}px`
    this.element.style.top = `${Math.max(6, top)}px`
  }

  hide(): void {
    this.element.hidden = true
  }

  close(): void {
    this.element.remove()
  }
}

function made(tag: string, text: string): HTMLElement {
  const element = document.createElement(tag)
  const inner = document.createElement('bdi')
  inner.textContent = text
  element.append(inner)
  return element
}
