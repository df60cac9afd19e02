import { expect, test } from 'vitest'

import { Parser } from './events'

test('messages are whole whatever the pieces are', () => {
  const text = ': connected\nretry: 5000\n\nid: 1-2\nevent: firing\ndata: {"a":\ndata: 1}\n\n:still here\n\nevent: missed\r\ndata: {}\r\n\r\n'
  const parser = new Parser()
  const messages = Array.from(text).flatMap((piece) => parser.push(piece))
  expect(messages).toEqual([
    { id: '1-2', event: 'firing', data: '{"a":\n1}' },
    { event: 'missed', data: '{}' },
  ])
  expect(parser.retry).toBe(5000)
  expect(new Parser().push(text)).toEqual(messages)
})
