import { systemRuntime } from './runtime.ts'

export interface UntilOptions {
  /**
   * Milliseconds after which the wait fails. The default is longer than a broker takes to reassign a dead
   * member's partitions.
   */
  readonly limitMs?: number
  /** The name of the condition, for the error. */
  readonly what?: string
  /**
   * A promise for the exit code of a process that the condition depends on. If the process ends, the wait
   * fails.
   */
  readonly ended?: Promise<number>
  /** If this signal aborts, the wait fails with the signal's reason. */
  readonly signal?: AbortSignal
}

type Found<Value> = Value | undefined | false | null

const DEFAULT_LIMIT_MS = 30_000
const FIRST_PAUSE_MS = 5
const LONGEST_PAUSE_MS = 50

/**
 * Calls `find` repeatedly until it returns something other than false, null and undefined, and returns that
 * value. A call that throws counts as one that found nothing. Rejects after `limitMs`, with the error of the
 * last call as the cause.
 */
export async function until<Value>(
  find: () => Found<Value> | Promise<Found<Value>>,
  { limitMs = DEFAULT_LIMIT_MS, what = 'the condition', ended, signal }: UntilOptions = {},
): Promise<Value> {
  let exitCode: number | undefined
  ended?.then((code) => {
    exitCode = code
  })
  const deadline = systemRuntime.monotonic() + limitMs
  let pauseMs = FIRST_PAUSE_MS
  let last: unknown
  do {
    signal?.throwIfAborted()
    if (exitCode !== undefined) throw new Error(`the process ended with code ${exitCode}`)
    try {
      last = undefined
      const found = await find()
      if (found !== undefined && found !== false && found !== null) return found
    } catch (error) {
      last = error
    }
    await systemRuntime.sleep(pauseMs)
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)
  } while (systemRuntime.monotonic() < deadline)
  const reason = last instanceof Error ? `: ${last.message}` : ''
  const error = `${what} did not come true within ${limitMs / 1000} s${reason}: ${find}`
  throw new Error(error, { cause: last })
}
