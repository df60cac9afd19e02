// Many wishes for the same thing are one: what is wished while it is done is done once more after it.

/** Does `act` at once, but never twice at a time, and again no sooner than `pause` milliseconds after it was done. */
export function coalesce(act: () => Promise<void>, pause: number): () => void {
  let isBusy = false
  let isWanted = false

  async function run(): Promise<void> {
    isBusy = true
    while (isWanted) {
      isWanted = false
      try {
        await act()
      } catch {
        // Whoever acts says what is wrong with it.
      }
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
    isBusy = false
  }
  return () => {
    isWanted = true
    if (!isBusy) void run()
  }
}
