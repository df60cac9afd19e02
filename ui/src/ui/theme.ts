// Light or dark: as the system says, unless the user has chosen.

import { ref, type Ref } from 'vue'

export type Theme = 'system' | 'light' | 'dark'

const KEY = 'probe.theme'

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY)
    return value === 'light' || value === 'dark' ? value : 'system'
  } catch {
    return 'system'
  }
}

export const theme: Ref<Theme> = ref(stored())
/** Is what is shown now dark? A canvas draws anew when this changes. */
export const isDarkNow = ref(false)

const system = window.matchMedia('(prefers-color-scheme: dark)')

/** Chooses, remembers and shows a theme. */
export function choose(chosen: Theme): void {
  theme.value = chosen
  apply()
  try {
    if (chosen === 'system') localStorage.removeItem(KEY)
    else localStorage.setItem(KEY, chosen)
  } catch {
    // Then it holds until the page is closed.
  }
}

/** Shows the chosen theme. */
export function apply(): void {
  const root = document.documentElement
  if (theme.value === 'system') root.removeAttribute('data-theme')
  else root.setAttribute('data-theme', theme.value)
  isDarkNow.value = theme.value === 'system' ? system.matches : theme.value === 'dark'
}

/** Shows it, and follows the system when it changes between light and dark. */
export function follow(): void {
  apply()
  system.addEventListener('change', apply)
}
