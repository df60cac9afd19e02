// Requests to the API of the server that this page is from.

import { authorization, wanted } from './token'
import type { ProblemDocument } from './types'

/** What the server said in place of an answer, or why there is none. */
export class Problem extends Error {
  override name = 'Problem'

  constructor(
    /** The status of the response; 0 if there was no response. */
    readonly status: number,
    readonly title: string,
    detail: string,
    readonly hint = '',
    /** What is wrong, by field. */
    readonly fields: ReadonlyMap<string, string> = new Map(),
    /** When to ask again, in seconds. */
    readonly retryAfter?: number,
  ) {
    super(detail)
  }
}

export interface Options {
  method?: 'GET' | 'PUT' | 'POST' | 'DELETE'
  /** Sent as JSON. */
  body?: unknown
  headers?: Record<string, string>
  signal?: AbortSignal | undefined
}

/** The address of a path below `/api/v1/`, whose parts are escaped. */
export function api(parts: string[], query: Record<string, string | number | boolean | undefined> = {}): string {
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== '') parameters.set(name, String(value))
  }
  const text = parameters.toString()
  return `/api/v1/${parts.map(encodeURIComponent).join('/')}${text ? `?${text}` : ''}`
}

/** Sends a request; anything but a success is a `Problem`. */
export async function send(url: string, options: Options = {}): Promise<Response> {
  const { method = 'GET', body, headers, signal } = options
  const own = { ...authorization(), ...headers }
  const request: RequestInit = method === 'GET'
    ? { headers: own, signal: signal ?? null }
    : {
      method, signal: signal ?? null, body: JSON.stringify(body ?? {}),
      headers: { ...own, 'content-type': 'application/json', 'x-requested-with': 'probe' },
    }
  let response: Response
  try {
    response = await fetch(url, request)
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error
    throw new Problem(0, 'No answer', 'The server does not answer.', 'Is the daemon running? It is asked again by itself.')
  }
  if (response.ok) return response
  throw await problemOf(response)
}

/** Asks for JSON. */
export async function getJson<T>(url: string, signal?: AbortSignal): Promise<T> {
  const response = await send(url, { signal })
  return (await response.json()) as T
}

/** Asks for bytes. */
export async function getBytes(url: string, signal?: AbortSignal): Promise<ArrayBuffer> {
  return (await send(url, { signal })).arrayBuffer()
}

async function problemOf(response: Response): Promise<Problem> {
  let document: Partial<ProblemDocument> = {}
  try {
    document = (await response.json()) as Partial<ProblemDocument>
  } catch {
    // Something between this page and the server has answered; its status has to do.
  }
  const detail = document.detail ?? `The request failed with status ${response.status}.`
  if (response.status === 401) wanted.value = detail
  const fields = new Map((document.errors ?? []).map(({ field, reason }) => [field, reason]))
  const wait = Number(response.headers.get('retry-after') ?? NaN)
  const title = document.title ?? `Status ${response.status}`
  return new Problem(response.status, title, detail, document.hint, fields, Number.isFinite(wait) ? wait : undefined)
}

/** Whatever was thrown, as a `Problem`. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error
  return new Problem(0, 'This page failed', error instanceof Error ? error.message : String(error))
}

/** Saves what an address gives as a file. A link cannot send a token, so that the bytes pass through the page. */
export async function download(url: string, usual: string, options: Options = {}): Promise<void> {
  const response = await send(url, options)
  const named = /filename="([^"]+)"/.exec(response.headers.get('content-disposition') ?? '')
  save(await response.blob(), named?.[1] ?? usual)
}

/** Saves bytes as a file. */
export function save(bytes: Blob, name: string): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(bytes)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}
