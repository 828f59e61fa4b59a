import { type Runtime, WOKEN } from './runtime.ts'

/** A latch. Any code that notices work raises it, and the loop that does the work waits for it. */
export interface Signal {
  /**
   * Ends the current wait or, if there is none, the next wait. Raising the latch twice before a wait counts
   * once.
   */
  raise(): void
  /** Raises the latch after `delayMs`. Further calls during that time have no effect. */
  raiseIn(delayMs: number): void
  /** Resolves with true when the latch is raised, or with false after `limitMs`. Lowers the latch. */
  wait(limitMs: number): Promise<boolean>
}

export function createSignal(runtime: Runtime): Signal {
  let raised = false
  let scheduled: AbortController | undefined
  let wakeUp: AbortController | undefined
  function raise(): void {
    raised = true
    scheduled?.abort(WOKEN)
    wakeUp?.abort(WOKEN)
  }

  return {
    raise,
    async raiseIn(delayMs) {
      if (scheduled) return
      scheduled = new AbortController()
      await runtime.sleep(delayMs, scheduled.signal)
      const isDue = !scheduled.signal.aborted
      scheduled = undefined
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
