import type { Log, Runtime } from './runtime.ts'

/**
 * Runs the work at once and then repeatedly. The next run starts `everyMs` after the previous run ended, or
 * after the number of milliseconds that the previous run returned. If a run fails, the failure is logged and
 * the work continues.
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
