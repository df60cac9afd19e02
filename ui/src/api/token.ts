// The token of the API, where the server wants one. It is kept as long as the tab, and nowhere else.

import { ref, type Ref } from 'vue'

const KEY = 'probe.token'

function stored(): string {
  try {
    return sessionStorage.getItem(KEY) ?? ''
  } catch {
    return ''
  }
}

let token = stored()

/** Set while the server refuses what is sent for want of a token: why. */
export const wanted: Ref<string | undefined> = ref()

/** Counts the tokens that were given: what has failed is asked for again when it changes. */
export const generation: Ref<number> = ref(0)

/** The headers by which a request says who it is. */
export function authorization(): Record<string, string> {
  return token ? { authorization: `Bearer ${token}` } : {}
}

export function hasToken(): boolean {
  return token !== ''
}

/** Takes a token, or forgets the one that there is. */
export function setToken(given: string): void {
  token = given.trim()
  wanted.value = undefined
  generation.value++
  try {
    if (token) sessionStorage.setItem(KEY, token)
    else sessionStorage.removeItem(KEY)
  } catch {
    // Then it holds until the page is loaded anew.
  }
}
