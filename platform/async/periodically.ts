import type { Log, Runtime } from './runtime.ts'

/**
 * Runs work again and again, so long after its last end, or as long as it returns that it can wait; a
 * failure is logged and tried again.
 */
export function periodically(
  everyMs: number,
  runtime: Runtime,
  log: Log,
  // biome-ignore lint/suspicious/noConfusingVoidType: work that cannot wait longer returns nothing
  work: () => Promise<number | void>,
): { close(): Promise<void> } {
  const closing = new AbortController()
  async function loop(): Promise<void> {
    while (!closing.signal.aborted) {
      let waitMs = everyMs
      try {
        waitMs = (await work()) ?? everyMs
      } catch (error) {
        log.warn({ err: error }, 'periodic work failed; it is tried again')
      }
      await runtime.sleep(waitMs, closing.signal)
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
