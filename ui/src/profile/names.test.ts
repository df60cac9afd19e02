import { describe, expect, it } from 'vitest'

import { formatBytes, formatPoints, formatShare, formatTime, formatWeight } from './format'
import { cut, tail, visible } from './names'
import { isRuntime } from './runtime'

describe('names', () => {
  it('show what cannot be seen', () => {
    expect(visible('a\u0000b\n\u001b[2J\u007f')).toBe('a␀b␊␛[2J␡')
    expect(visible('x\u202Egpj.exe\u2066\u200b\ufeff')).toBe('x⟨U+202E⟩gpj.exe⟨U+2066⟩⟨U+200B⟩⟨U+FEFF⟩')
    expect(visible('\ud800 \u{e0041} \u0085')).toBe('⟨U+D800⟩ ⟨U+E0041⟩ ⟨U+0085⟩')
    expect(visible('<img src=x> λ 函数 עברית 🦀')).toBe('<img src=x> λ 函数 עברית 🦀')
  })

  it('are cut before anything else is done with them', () => {
    const name = 'x'.repeat(1 << 20)
    expect(cut(name, 100)).toBe(`${'x'.repeat(100)}…`)
    expect(tail(`${name}::y`)).toBe(`${name}::y`)
  })

  it('have a tail', () => {
    expect(tail('core::iter::Map<I, F>::fold')).toBe('Map::fold')
    expect(tail('<alloc::vec::Vec<T> as core::ops::Drop>::drop')).toBe('Drop>::drop')
    expect(tail('shop::pricing::evaluate(shop::pricing::Rule const&, int)')).toBe('pricing::evaluate')
    expect(tail('std::vector<int> a::b<std::map<int, x> >(int (*)(a::b)) const')).toBe('a::b')
    expect(tail('main.handle')).toBe('main.handle')
  })

  it('of runtimes are known', () => {
    for (const [name, module] of [['_PyEval_EvalFrameDefault', '/usr/bin/python3'], ['runtime.mallocgc', '/app'],
      ['anything', '/lib/x86_64-linux-gnu/libc.so.6'], ['__libc_start_main', ''], ['v8::internal::Foo', '/usr/bin/node'],
      ['std::rt::lang_start', '/app'], ['x', '/usr/lib/libpython3.11.so.1.0']]) {
      expect(isRuntime(name!, module!), name).toBe(true)
    }
    for (const name of ['main', 'match_rules', 'runtimes::go', 'MyPyEval', 'start_threads', 'app::std::rt']) {
      expect(isRuntime(name, '/app'), name).toBe(false)
    }
  })
})

describe('numbers', () => {
  it('have units', () => {
    expect(formatTime(0.25)).toBe('250 µs')
    expect(formatTime(75000)).toBe('1.3 min')
    expect(formatBytes(1536)).toBe('1.5 KiB')
    expect(formatWeight(100, 'samples', 10)).toBe('100 samples ≈ 1.00 s')
    expect(formatWeight(1, 'samples', 0)).toBe('1 sample')
    expect(formatShare(1, 3)).toBe('33.3%')
    expect(formatShare(0, 0)).toBe('0%')
    expect(formatPoints(12.34)).toBe('+12.3 pp')
    expect(formatPoints(-0.5)).toBe('−0.50 pp')
  })
})
