import { setTimeout as sleep } from 'node:timers/promises'

export interface UntilOptions {
  readonly limitMs: number
  /** Resolves with an exit code when what is waited for can no longer come. */
  readonly ended?: Promise<number>
  /** Ends the wait with its reason. */
  readonly signal?: AbortSignal
}

const PAUSE_MS = 50

/** Asks until the answer is true. Rejects past the limit, with the last thing that was thrown. */
export async function until(
  asked: () => Promise<boolean>,
  { limitMs, ended, signal }: UntilOptions,
): Promise<void> {
  let exitCode: number | undefined
  ended?.then((code) => {
    exitCode = code
  })
  const deadline = performance.now() + limitMs
  let last: unknown
  do {
    signal?.throwIfAborted()
    if (exitCode !== undefined) throw new Error(`it ended with code ${exitCode}`)
    const isSo = await asked().catch((error) => {
      last = error
      return false
    })
    if (isSo) return
    await sleep(PAUSE_MS)
  } while (performance.now() < deadline)
  const reason = last instanceof Error ? `: ${last.message}` : ''
  throw new Error(`it did not answer within ${limitMs / 1000} s${reason}`, { cause: last })
}
