import type { Log } from './runtime.ts'

/** Something that can be away: however often it is tried meanwhile, an outage is logged once. */
export function createOutage(log: Log, what: string) {
  let failures = 0
  return {
    /** Returns how often it failed before in this outage. */
    failed(error: unknown): number {
      if (failures === 0) log.warn({ err: error }, `${what} fails; it will be tried again`)
      return failures++
    },
    over(): void {
      if (failures > 0) log.info({ failures }, `${what} works again`)
      failures = 0
    },
    lasts: () => failures > 0,
  }
}
