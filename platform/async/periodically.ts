import type { Log, Runtime } from './runtime.ts'

/**
 * Runs the work at once and then repeatedly, `everyMs` after the end of the last run, or the number of
 * milliseconds after it that the last run returned. A failure is logged, and the work is repeated.
 */
export function periodically(
  everyMs: number,
  runtime: Runtime,
  log: Log,
  // biome-ignore lint/suspicious/noConfusingVoidType: work without its own interval returns nothing
  work: () => Promise<number | void>,
): { close(): Promise<void> } {
  const closing = new AbortController()
  async function loop(): Promise<void> {
    while (!closing.signal.aborted) {
      let waitMs = everyMs
      try {
        waitMs = (await work()) ?? everyMs
      } catch (error) {
        log.warn({ err: error }, 'periodic work failed; retrying')
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
