import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { coalesce } from './coalesce'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('a burst is one question at once and one after it', async () => {
  let open = 0
  let most = 0
  const times: number[] = []
  const begin = Date.now()
  const ask = coalesce(async () => {
    times.push(Date.now() - begin)
    most = Math.max(most, ++open)
    await new Promise((resolve) => setTimeout(resolve, 100))
    open--
  }, 250)
  for (let n = 0; n < 500; n++) ask()
  expect(times).toEqual([0])
  await vi.advanceTimersByTimeAsync(349)
  expect(times).toEqual([0])
  await vi.advanceTimersByTimeAsync(1000)
  expect(times).toEqual([0, 350])
  // Later it is asked at once again.
  ask()
  expect(times).toEqual([0, 350, 1349])
  expect(most).toBe(1)
})

test('what fails is asked again', async () => {
  const act = vi.fn(() => Promise.reject(new Error('no answer')))
  const ask = coalesce(act, 250)
  ask()
  await vi.advanceTimersByTimeAsync(300)
  ask()
  expect(act).toHaveBeenCalledTimes(2)
})
