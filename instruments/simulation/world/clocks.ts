import type { Chance } from './chance.ts'

/** The clock of one machine. Timers run by true time; only what the clock shows is wrong. */
export interface Clock {
  /** What it shows at a true time; both in epoch milliseconds. */
  read(trueMs: number): number
  /** Sets it ahead, or back where negative. */
  jump(byMs: number): void
}

/**
 * How good the clocks of a profile are: true to the database's; near it, as with NTP; or wrong, as
 * without: minutes, hours or more than a day off, drifting, and set while the process runs.
 */
export type ClockQuality = 'true' | 'near' | 'wrong'

const NEAR_MS = 300
const MAX_DRIFT = 0.02
const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
/** Longer than an idempotency key is kept. */
const DAY_MS = 25 * HOUR_MS

export function drawClock(quality: ClockQuality, chance: Chance, startMs: number): Clock {
  switch (quality) {
    case 'true':
      return createClock(0)
    case 'near':
      return createClock(chance.between(-NEAR_MS, NEAR_MS))
    case 'wrong':
      return createClock(drawOffsetMs(chance), chance.between(-MAX_DRIFT, MAX_DRIFT), startMs)
  }
}

/** A clock that shows the true time plus an offset, and gains or loses a share of the time since `startMs`. */
export function createClock(offsetMs = 0, drift = 0, startMs = 0): Clock {
  let aheadMs = offsetMs
  return {
    read: (trueMs) => Math.floor(trueMs + aheadMs + (trueMs - startMs) * drift),
    jump(byMs) {
      aheadMs += byMs
    },
  }
}

/** How wrong a clock is, or how far it jumps. */
export function drawOffsetMs(chance: Chance): number {
  const size = chance.pick([NEAR_MS, MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, 12 * HOUR_MS, DAY_MS])
  return chance.pick([-1, 1]) * size * chance.between(1, 1.2)
}
