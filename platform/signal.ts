import { type Runtime, WOKEN } from './runtime.ts'

/** A latch between those who notice that there is work and the one loop that does it. */
export interface Signal {
  /** Lets the next or the present wait end; raising it twice before a wait counts once. */
  raise(): void
  /** Resolves once raised, or after so many milliseconds; lowers the latch. */
  wait(limitMs: number): Promise<void>
}

export function createSignal(runtime: Runtime): Signal {
  let raised = false
  let wakeUp: AbortController | undefined
  return {
    raise() {
      raised = true
      wakeUp?.abort(WOKEN)
    },
    async wait(limitMs) {
      if (!raised) {
        wakeUp = new AbortController()
        await runtime.sleep(limitMs, wakeUp.signal)
        wakeUp = undefined
      }
      raised = false
    },
  }
}
