import type { Log } from './runtime.ts'

/**
 * Tracks outages of a dependency, and logs the start and the end of each outage once, however many attempts
 * fail.
 */
export function createOutage(log: Log, what: string) {
  let failures = 0
  return {
    /** Records a failed attempt. Returns the number of earlier failed attempts in this outage. */
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
