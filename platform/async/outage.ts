import type { Log } from './runtime.ts'

/** Tracks the outages of something that may fail, and logs each of them once, however many attempts fail. */
export function createOutage(log: Log, what: string) {
  let failures = 0
  return {
    /** Records a failed attempt. Returns how many attempts failed before it in this outage. */
    failed(error: unknown): number {
      if (failures === 0) log.warn({ err: error }, `${what} failed; retrying`)
      return failures++
    },
    ended(): void {
      if (failures > 0) log.info({ failures }, `${what} works again`)
      failures = 0
    },
    isOngoing: () => failures > 0,
  }
}
