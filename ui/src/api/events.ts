// Server-sent events. `EventSource` can send no token, so that this reads the stream itself: it comes back after a break,
// says where it was, and waits longer each time that it fails.

import { authorization } from './token'
import type { Event as Happened } from './types'

export interface Listener {
  event(event: Happened): void
  /** Events are forgotten: what is shown has to be asked for anew. */
  missed(): void
  /** Whether events arrive now. */
  connected(is: boolean): void
}

/** One message of a stream. */
export interface Message {
  id?: string
  event: string
  data: string
}

/** Takes a stream of text apart into messages; what is not complete yet waits for the next piece. */
export class Parser {
  private rest = ''
  retry = 3000

  push(piece: string): Message[] {
    this.rest += piece
    const messages: Message[] = []
    for (;;) {
      const end = /\r?\n\r?\n/.exec(this.rest)
      if (!end) return messages
      const block = this.rest.slice(0, end.index)
      this.rest = this.rest.slice(end.index + end[0].length)
      const message = this.message(block)
      if (message) messages.push(message)
    }
  }

  private message(block: string): Message | undefined {
    let id: string | undefined
    let event = 'message'
    const data: string[] = []
    for (const line of block.split(/\r?\n/)) {
      const at = line.indexOf(':')
      if (at === 0) continue
      const [name, value] = at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, '')]
      if (name === 'id') id = value
      else if (name === 'event') event = value
      else if (name === 'data') data.push(value)
      else if (name === 'retry' && /^\d+$/.test(value)) this.retry = Number(value)
    }
    if (!data.length) return undefined
    return id === undefined ? { event, data: data.join('\n') } : { id, event, data: data.join('\n') }
  }
}

const LONGEST_WAIT = 30_000
/** The server says every 15 seconds that it is there. */
const SILENCE = 40_000

/** Listens until the returned function is called. */
export function listen(listener: Listener, url = '/api/v1/events'): () => void {
  const ended = new AbortController()
  void run(listener, url, ended.signal)
  return () => ended.abort()
}

async function run(listener: Listener, url: string, ended: AbortSignal): Promise<void> {
  let last: string | undefined
  let failures = 0
  while (!ended.aborted) {
    const parser = new Parser()
    const connection = new AbortController()
    const stop = () => connection.abort()
    ended.addEventListener('abort', stop, { once: true })
    let watchdog = setTimeout(stop, SILENCE)
    try {
      const headers = { accept: 'text/event-stream', ...authorization(), ...(last ? { 'last-event-id': last } : {}) }
      const response = await fetch(url, { headers, signal: connection.signal, cache: 'no-store' })
      if (!response.ok || !response.body) throw new Error(`status ${response.status}`)
      listener.connected(true)
      failures = 0
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      for (;;) {
        const { done, value } = await reader.read()
        if (done) break
        clearTimeout(watchdog)
        watchdog = setTimeout(stop, SILENCE)
        for (const message of parser.push(value)) {
          if (message.event === 'missed') listener.missed()
          else listener.event(JSON.parse(message.data) as Happened)
          if (message.id) last = message.id
        }
      }
    } catch {
      failures++
    } finally {
      clearTimeout(watchdog)
      ended.removeEventListener('abort', stop)
    }
    // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- it may have been since
    if (ended.aborted) return
    listener.connected(false)
    await pause(Math.min(LONGEST_WAIT, parser.retry * 2 ** Math.min(failures, 4)), ended)
  }
}

function pause(milliseconds: number, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds)
    ended.addEventListener('abort', () => { clearTimeout(timer); resolve() }, { once: true })
  })
}
