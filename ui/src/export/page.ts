// The exported page: one profile in one file, which is opened offline. It has the renderer of the application, without a
// framework and without a worker; `page.html` and `page.css` stand beside the exporter.

import { byKind, LOSS_WORDS } from '../ui/losses'
import { Chart } from '../chart/chart'
import { LOOK, LOOK_NAMES, lookOf } from '../chart/palette'
import { Tip } from '../chart/tip'
import { describe } from '../profile/describe'
import { Engine } from '../profile/engine'
import { formatInteger, formatNumber, formatShare, formatTime } from '../profile/format'
import { ALL_FRAMES } from '../profile/grow'
import type { FlamegraphJson } from '../profile/json'
import { nodeOfPath, pathId, type Tree } from '../profile/layout'
import { cut, visible } from '../profile/names'
import { decode, KIND, moduleOf, nameOf } from '../profile/profile'
import { escape, found, isRisky, query } from '../profile/search'
import { EVERYTHING } from '../profile/select'
import type { Totals } from '../profile/totals'
import { DEFAULTS, urlState } from '../state'

const SHOWN_ROWS = 200
/** How much of a name is searched: nothing could end a search that takes too long. */
const LONGEST = 1000

const element = (id: string): HTMLElement => {
  const known = document.getElementById(id)
  if (!known) throw new Error(`the page has no ${id}`)
  return known
}

const profile = decode(JSON.parse(element('data').textContent) as FlamegraphJson)
const { columns } = profile
const engine = new Engine(columns)
const inTree = new Set(columns.fn)
const view = element('view')
const search = element('search') as HTMLInputElement
const threads = element('thread') as HTMLSelectElement
const dialog = element('keys') as HTMLDialogElement

interface Search { hits: Uint8Array, count: number, problem: string }
const state = {
  dark: false, callers: false, flame: true, selection: { ...EVERYTHING }, zoom: 0, history: [] as number[],
  search: null as Search | null, sort: 'self' as 'self' | 'total',
}
/** The same in the address, behind the #, so that a link to the file shows the same. */
const url = urlState('hash')
let isWriting = false
let tree: Tree
let totals: Totals

const tip = new Tip()
tip.element.id = 'tip'
const chart = new Chart(view, {
  hover(node, x, y) {
    if (node >= 0) tip.show(describe(profile, tree, node, totals, state.zoom), x, y)
    else tip.hide()
  },
  choose: (node) => { zoomTo(node) },
  focus(node) {
    const place = chart.place(node)
    if (place) tip.show(describe(profile, tree, node, totals, state.zoom), place.x + Math.min(place.width / 2, 120), place.y + place.height - 6)
  },
  reset: () => undefined,
  painted: () => { document.documentElement.dataset['drawn'] = String(chart.drawn) },
})
chart.canvas.id = 'chart'

/** A new element with text; names only ever become text. */
function make(tag: string, text = '', className = ''): HTMLElement {
  const made = document.createElement(tag)
  if (text) made.textContent = text
  if (className) made.className = className
  return made
}

function fillHeader(): void {
  element('title').title = visible(profile.title)
  const facts: string[] = []
  if (profile.startedMs > 0) facts.push(`${new Date(profile.startedMs).toISOString().slice(0, 19).replace('T', ' ')} UTC`)
  if (profile.durationMs > 0) facts.push(formatTime(profile.durationMs))
  if (profile.sampler) facts.push(profile.frequency ? `${profile.sampler} at ${profile.frequency} Hz` : profile.sampler)
  facts.push(formatNumber(profile.samples, 'sample'))
  facts.push(formatNumber(profile.threads.length, 'thread'))
  if (profile.host) facts.push(`host ${profile.host}`)
  if (profile.kernel) facts.push(`Linux ${profile.kernel}`)
  element('facts').textContent = element('facts').title = facts.map((fact) => cut(fact, 200)).join('  ·  ')
  const note = (list: [string, number][], label: string) => {
    if (!list.length) return
    const all = list.reduce((sum, [, count]) => sum + count, 0)
    const made = make('span', `${label} ${formatInteger(all)}`, 'note')
    made.title = list.map(([reason, count]) => `${reason}: ${formatInteger(count)}`).join('\n')
    if (list.length === 1) made.textContent += ` (${visible(list[0]![0])})`
    element('notes').append(made)
  }
  for (const { kind, reasons } of byKind(profile.losses)) {
    if (kind !== 'cut' || !profile.cut.length) note(reasons, LOSS_WORDS[kind].short)
  }
  note(profile.cut, 'stacks cut')
}

function fillThreads(): void {
  const weights = new Float64Array(profile.threads.length)
  columns.weights.thread.forEach((thread, at) => { weights[thread]! += columns.weights.weight[at]! })
  const option = (value: string, text: string) => {
    const made = make('option', text) as HTMLOptionElement
    made.value = value
    return made
  }
  const count = profile.threads.length
  threads.append(option('', count === 1 ? '1 thread' : `All ${count} threads`))
  const processes = new Map<string, { label: string, members: number[], weight: number }>()
  profile.threads.forEach(({ pid, process }, at) => {
    const key = `${pid} ${process}`
    let one = processes.get(key)
    if (!one) {
      one = { label: pid ? `${cut(process, 100)} (pid ${pid})` : cut(process, 100), members: [], weight: 0 }
      processes.set(key, one)
    }
    one.members.push(at)
    one.weight += weights[at]!
  })
  for (const { label, members, weight } of [...processes.values()].sort((a, b) => b.weight - a.weight)) {
    const group = make('optgroup') as HTMLOptGroupElement
    group.label = label
    if (processes.size > 1 && members.length > 1) {
      group.append(option(members.join(','), `${formatShare(weight, profile.total)}  the whole process`))
    }
    for (const at of members.sort((a, b) => weights[b]! - weights[a]!)) {
      const { name, tid } = profile.threads[at]!
      group.append(option(String(at), `${formatShare(weights[at]!, profile.total)}  ${cut(name, 60) || 'thread'} · ${tid}`))
    }
    threads.append(group)
  }
}

function fillLegend(): void {
  const shown = [LOOK.user, LOOK.kernel, LOOK.runtime, LOOK.cut].filter((look) => columns.fn.some((fn) => lookOf(columns, fn) === look))
  element('legend').replaceChildren(...shown.map((look) => {
    const entry = make('span'), mark = make('i', '', `look-${look}`)
    mark.style.background = chart.sample(look)
    entry.append(mark, LOOK_NAMES[look])
    return entry
  }))
}

/** Rebuilds what is shown after other threads, or the other order of stacks, were chosen. */
function rebuild(): void {
  tree = engine.tree({ selection: state.selection, frames: ALL_FRAMES, invert: state.callers, scale: { own: 1, other: 0 } })
  totals = engine.totals(state.selection)
  state.history = []
  state.zoom = 0
  tip.hide()
  chart.show({ tree, columns, change: null })
  refresh()
  fillRows()
}

function fillRows(): void {
  const by = state.sort === 'self' ? totals.self : totals.total
  const listed: number[] = []
  for (let fn = 1; fn < columns.name.length; fn++) {
    const kind = columns.kind[fn]
    if (by[fn]! > 0 && kind !== KIND.process && kind !== KIND.thread) listed.push(fn)
  }
  listed.sort((a, b) => by[b]! - by[a]! || totals.total[b]! - totals.total[a]!)
  element('rows').replaceChildren(...listed.slice(0, SHOWN_ROWS).map((fn) => {
    const row = make('tr', '', 'row'), cell = make('td'), dot = make('span', '', 'dot')
    const share = (weight: number) => {
      const made = make('td', formatShare(weight, totals.all), 'share')
      made.style.backgroundSize = `${(100 * weight) / (totals.all || 1)}% 18px`
      return made
    }
    dot.style.background = chart.sample(lookOf(columns, fn))
    cell.append(dot, nameOf(columns, fn))
    row.title = [nameOf(columns, fn), moduleOf(columns, fn)].filter(Boolean).join('\n').slice(0, 600)
    row.dataset['fn'] = String(fn)
    row.append(cell, share(totals.self[fn]!), share(totals.total[fn]!))
    return row
  }))
  element('more').textContent = listed.length > SHOWN_ROWS ? `and ${formatInteger(listed.length - SHOWN_ROWS)} more` : ''
  markRows()
}

function markRows(): void {
  for (const row of element('rows').children) {
    row.classList.toggle('hit', !!state.search?.hits[Number((row as HTMLElement).dataset['fn'])])
  }
}

/** Writes the state into the address, in place of what stood there. */
function remember(): void {
  isWriting = true
  try {
    url.set({
      ...DEFAULTS, q: search.value, frame: pathId(tree, state.zoom), invert: state.callers, flame: !state.flame, thread: threads.value,
      sort: state.sort === 'self' ? '' : state.sort,
    })
  } catch {
    // A page within another may have no address of its own.
  }
  isWriting = false
}

/** Shows what the address says. */
function recall(): void {
  const { q, frame, invert, flame, thread, sort } = url.get()
  state.callers = invert
  // Flame is how this page begins, so that the address has the other.
  state.flame = !flame
  state.sort = sort === 'total' ? 'total' : 'self'
  threads.value = thread
  if (threads.selectedIndex < 0) threads.value = ''
  state.selection = selected()
  chart.setFlame(state.flame)
  rebuild()
  find(q)
  const node = nodeOfPath(tree, frame)
  if (node > 0) zoomTo(node, false)
}

function selected(): typeof EVERYTHING {
  const { value } = threads
  return { ...EVERYTHING, threads: value === '' ? null : value.split(',').map(Number) }
}

/** Brings buttons, path, search and address in line with the state. */
function refresh(): void {
  remember()
  const press = (id: string, on: boolean) => element(id).setAttribute('aria-pressed', String(on))
  press('callers', state.callers)
  press('callees', !state.callers)
  press('icicle', !state.flame)
  press('flame', state.flame)
  press('by-self', state.sort === 'self')
  press('by-total', state.sort === 'total')
  press('list', !element('functions').hidden)
  const button = (id: string, off: boolean) => element(id).toggleAttribute('disabled', off)
  button('back', !state.history.length)
  button('reset', state.zoom === 0)
  const path: string[] = []
  for (let node = state.zoom; node > 0; node = tree.parent[node]!) path.unshift(cut(nameOf(columns, tree.fn[node]!), 400))
  const text = path.length ? path.join(' › ') : tree.total[0]! > 0 ? 'Click a frame to zoom in' : 'No samples here'
  element('path').textContent = text.length > 400 ? `… ${text.slice(-400)}` : text
  const now = state.search
  chart.setHits(now ? now.hits : null)
  search.classList.toggle('active', !!now)
  search.setAttribute('aria-invalid', String(!!now && now.problem !== ''))
  search.title = now?.problem ?? ''
  let matched = ''
  if (now && now.count > 0) {
    matched = `${formatShare(found(tree, now.hits).weight, tree.total[0]!)} in ${now.count}`
  } else if (now) matched = now.problem.startsWith('too slow') ? 'too slow' : 'no match'
  element('matched').textContent = matched
  Object.assign(document.documentElement.dataset, {
    zoom: nameOf(columns, tree.fn[state.zoom]!).slice(0, 200),
    direction: state.flame ? 'flame' : 'icicle',
    order: state.callers ? 'callers' : 'callees',
    weight: String(tree.total[0]),
  })
}

function zoomTo(node: number, remember = true): void {
  if (node < 0 || node === state.zoom) return
  if (remember) state.history.push(state.zoom)
  state.zoom = node
  tip.hide()
  chart.zoom(node, false)
  refresh()
}

function back(): void {
  const node = state.history.pop()
  if (node !== undefined) zoomTo(node, false)
  refresh()
}

function reset(): void {
  zoomTo(0)
  chart.zoom(0, false)
  state.history = []
  refresh()
}

function find(text: string): void {
  search.value = text
  state.search = null
  if (text) {
    const { problem } = query(text)
    const none = new Uint8Array(columns.name.length)
    if (!problem && isRisky(text)) state.search = { hits: none, count: 0, problem: 'too slow: the pattern could take forever' }
    else {
      const hits = engine.find(text, LONGEST)
      state.search = { hits, count: hits.reduce((sum, hit, fn) => sum + (hit && inTree.has(fn) ? 1 : 0), 0), problem }
    }
  }
  refresh()
  markRows()
}

function theme(dark: boolean): void {
  state.dark = dark
  document.documentElement.dataset['theme'] = dark ? 'dark' : 'light'
  chart.restyle()
  fillLegend()
}

const actions = {
  direction(flame: boolean) { state.flame = flame; tip.hide(); chart.setFlame(flame); refresh() },
  order(callers: boolean) { state.callers = callers; rebuild() },
  list() { element('functions').hidden = !element('functions').hidden; refresh() },
  theme() { theme(!state.dark); fillRows(); refresh() },
  help() { dialog.showModal() },
  sort(by: 'self' | 'total') { state.sort = by; fillRows(); refresh() },
}

function onKey(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return
  const target = event.target as HTMLElement
  const typing = target === search
  if (event.key === 'Escape' && (typing || state.search)) {
    find('')
    view.focus()
  } else if (typing) {
    if (event.key === 'Enter') view.focus()
    return
  } else if (event.key === 'Escape' || event.key === 'Backspace') back()
  else if (event.key === '/') {
    search.focus()
    search.select()
  } else if (event.key === '?') actions.help()
  else if (event.key === '0' || event.key === 'Home') reset()
  else if (event.key === 'i') actions.direction(!state.flame)
  else if (event.key === 'r') actions.order(!state.callers)
  else if (event.key === 't') threads.focus()
  else if (event.key === 'f') actions.list()
  else if (event.key === 'd') actions.theme()
  else if (target === threads || target.tagName === 'BUTTON' || !/^(?:Arrow.*|Enter|[+=_-])$/.test(event.key) || !chart.key(event)) return
  event.preventDefault()
}

function wire(): void {
  const click = (id: string, act: () => void) => element(id).addEventListener('click', act)
  click('callees', () => actions.order(false))
  click('callers', () => actions.order(true))
  click('flame', () => actions.direction(true))
  click('icicle', () => actions.direction(false))
  click('by-self', () => actions.sort('self'))
  click('by-total', () => actions.sort('total'))
  click('back', back)
  click('reset', reset)
  click('list', () => actions.list())
  click('theme', () => actions.theme())
  click('help', () => actions.help())
  element('rows').addEventListener('click', (event) => {
    const fn = Number((event.target as HTMLElement).closest('tr')?.dataset['fn'] ?? -1)
    if (fn >= 0) find(state.search?.hits[fn] ? '' : `^${escape(nameOf(columns, fn).slice(0, LONGEST))}`)
  })
  search.addEventListener('input', () => find(search.value))
  threads.addEventListener('change', () => {
    state.selection = selected()
    rebuild()
  })
  window.addEventListener('keydown', onKey)
  const scheme = matchMedia('(prefers-color-scheme: dark)')
  scheme.addEventListener('change', () => { if (scheme.matches !== state.dark) actions.theme() })
}

fillHeader()
fillThreads()
theme(matchMedia('(prefers-color-scheme: dark)').matches)
wire()
recall()
url.listen(() => { if (!isWriting) recall() })
view.focus({ preventScroll: true })

/** For scripts and tests: where the first drawn frame whose name contains `text` is, in the window. */
Object.assign(window, {
  flamegraph: {
    locate(text: string) {
      for (let node = 0; node < tree.fn.length; node++) {
        if (!nameOf(columns, tree.fn[node]!).includes(text)) continue
        const place = chart.place(node)
        if (place && place.width >= 1) return { ...place, weight: tree.total[node] }
      }
      return null
    },
  },
})
