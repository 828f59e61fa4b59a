import type { Log, Runtime } from '../platform/runtime.ts'

/** Runs work again and again, so long after its last end; a failure is logged and tried again. */
export function periodically(
  everyMs: number,
  runtime: Runtime,
  log: Log,
  work: () => Promise<void>,
): { close(): Promise<void> } {
  const closing = new AbortController()
  async function loop(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        await work()
      } catch (error) {
        log.warn({ err: error }, 'periodic work failed; it is tried again')
      }
      await runtime.sleep(everyMs, closing.signal)
    }
  }
  const running = loop()
  return {
    async close() {
      closing.abort()
      await running
    },
  }
}
