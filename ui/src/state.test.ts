import { beforeEach, describe, expect, it } from 'vitest'

import { DEFAULTS, formatState, parseState, urlState, type ViewState } from './state'
import { random } from './profile/random.fixture'

describe('the state in an address', () => {
  it('is the same after it was written and read', () => {
    const next = random(7)
    const words = ['', 'breach', '01HF7YBW5R0000000000000007:before', 'a&b=c#d', '^<T>::\\w+ [+]$', 'λ 🦀', '%2F', '12,13']
    for (let round = 0; round < 500; round++) {
      const state: Record<string, unknown> = {}
      for (const [key, usual] of Object.entries(DEFAULTS)) {
        if (typeof usual === 'boolean') state[key] = next() < 0.5
        else if (typeof usual === 'number') state[key] = next() < 0.3 ? -1 : Math.floor(next() * 1e5) / 10
        else state[key] = words[Math.floor(next() * words.length)]
      }
      expect(parseState(formatState(state as unknown as ViewState))).toEqual(state)
    }
  })

  it('leaves out defaults and leaves others alone', () => {
    expect(formatState({ ...DEFAULTS })).toBe('')
    expect(formatState({ ...DEFAULTS, q: 'x' }, 'token=1&q=old&view=top')).toBe('token=1&q=x')
  })

  it('passes over what makes no sense', () => {
    expect(parseState('from=NaN&to=-5&collapse=maybe&frame=')).toEqual(DEFAULTS)
    expect(parseState(`q=${'x'.repeat(5000)}`).q.length).toBe(600)
  })
})

describe('the address of a page', () => {
  beforeEach(() => history.replaceState({ current: '/s/1', position: 3 }, '', '/s/1?keep=1'))

  it('follows the state, which follows the address', () => {
    const state = urlState()
    const seen: string[] = []
    state.listen((now) => seen.push(now.view))
    state.set({ view: 'top' })
    expect(location.search).toBe('?keep=1&view=top')
    expect(state.depth()).toBe(0)
    state.set({ view: 'diff' }, true)
    expect(state.depth()).toBe(1)
    const router = history.state as { current: string, back: string, position: number }
    expect(router).toMatchObject({ current: '/s/1?keep=1&view=diff', back: '/s/1?keep=1&view=top', position: 4 })
    history.replaceState(history.state, '', '/s/1?view=dump')
    dispatchEvent(new PopStateEvent('popstate'))
    expect(seen).toEqual(['top', 'diff', 'dump'])
    state.close()
  })

  it('can stand behind the #', () => {
    history.replaceState(null, '', '/f.html')
    const state = urlState('hash')
    state.set({ q: 'a b' })
    expect(location.href).toMatch(/\/f\.html#q=a\+b$/)
    state.close()
  })
})
