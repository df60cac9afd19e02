import { afterEach, expect, test, vi } from 'vitest'

import { api, asProblem, getJson, Problem, send } from './client'
import { setToken, wanted } from './token'

afterEach(() => {
  vi.unstubAllGlobals()
  setToken('')
})

const answer = (status: number, body: unknown, headers: Record<string, string> = {}) =>
  vi.fn<typeof fetch>(() => Promise.resolve(new Response(JSON.stringify(body), { status, headers })))

test('names in paths cannot leave their place', () => {
  expect(api(['targets', 'a/../b?x', 'threads'], { limit: 3, q: '', n: undefined })).toBe(
    '/api/v1/targets/a%2F..%2Fb%3Fx/threads?limit=3')
})

test('a refusal says what is wrong with which field', async () => {
  vi.stubGlobal('fetch', answer(422, {
    title: 'Unprocessable Entity', detail: 'above: no number', hint: 'give a number', errors: [{ field: 'above', reason: 'no number' }],
  }, { 'retry-after': '7' }))
  const problem = asProblem(await send('/x', { method: 'PUT', body: {} }).catch((error: unknown) => error))
  expect(problem).toBeInstanceOf(Problem)
  expect([problem.status, problem.message, problem.hint, problem.fields.get('above'), problem.retryAfter]).toEqual(
    [422, 'above: no number', 'give a number', 'no number', 7])
})

test('a token is sent once it is given, and asked for when it is refused', async () => {
  vi.stubGlobal('fetch', answer(401, { detail: 'the request has no token' }))
  await expect(getJson('/x')).rejects.toThrow('the request has no token')
  expect(wanted.value).toBe('the request has no token')
  setToken(' secret-of-16-letters ')
  expect(wanted.value).toBeUndefined()
  const fetched = answer(200, { a: 1 })
  vi.stubGlobal('fetch', fetched)
  expect(await getJson('/x')).toEqual({ a: 1 })
  expect(fetched.mock.calls[0]?.[1]?.headers).toEqual({ authorization: 'Bearer secret-of-16-letters' })
})

test('what is no JSON is a problem too', async () => {
  vi.stubGlobal('fetch', vi.fn(() => Promise.resolve(new Response('bad gateway', { status: 502 }))))
  await expect(getJson('/x')).rejects.toThrow('status 502')
  vi.stubGlobal('fetch', vi.fn(() => Promise.reject(new TypeError('failed to fetch'))))
  await expect(getJson('/x')).rejects.toThrow('does not answer')
})
