import { type Runtime, WOKEN } from './runtime.ts'

/** A latch between those who notice that there is work and the one loop that does it. */
export interface Signal {
  /** Lets the next or the present wait end; raising it twice before a wait counts once. */
  raise(): void
  /** Raises it after so many milliseconds; what asks for it meanwhile is served by the same. */
  raiseIn(delayMs: number): void
  /** Resolves once raised, or after so many milliseconds, with whether it was; lowers the latch. */
  wait(limitMs: number): Promise<boolean>
}

export function createSignal(runtime: Runtime): Signal {
  let raised = false
  let coming: AbortController | undefined
  let wakeUp: AbortController | undefined
  function raise(): void {
    raised = true
    coming?.abort(WOKEN)
    wakeUp?.abort(WOKEN)
  }

  return {
    raise,
    async raiseIn(delayMs) {
      if (coming) return
      coming = new AbortController()
      await runtime.sleep(delayMs, coming.signal)
      const isDue = !coming.signal.aborted
      coming = undefined
      if (isDue) raise()
    },
    async wait(limitMs) {
      if (!raised) {
        wakeUp = new AbortController()
        await runtime.sleep(limitMs, wakeUp.signal)
        wakeUp = undefined
      }
      const wasRaised = raised
      raised = false
      return wasRaised
    },
  }
}
