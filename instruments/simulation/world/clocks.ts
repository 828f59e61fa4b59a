import type { Chance } from './chance.ts'

/** The clock of one machine. Only its readings can be wrong; timers always run by true time. */
export interface Clock {
  /** The reading at a true time; both in epoch milliseconds. */
  read(trueMs: number): number
  /** Moves the clock forward or, if negative, back. */
  jump(byMs: number): void
}

/**
 * How accurate the clocks of a profile are: `true` clocks agree with the database's, `near` ones are a fraction of
 * a second off, as with NTP, and `wrong` ones drift and are up to more than a day off, as without NTP.
 */
export type ClockQuality = 'true' | 'near' | 'wrong'

const NEAR_MS = 300
const MAX_DRIFT = 0.02
const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
/** A little more than a day, so longer than the lifetime of an idempotency key. */
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

/** A clock that is off by `offsetMs` and gains `drift` milliseconds for each millisecond since `startMs`. */
export function createClock(offsetMs = 0, drift = 0, startMs = 0): Clock {
  let aheadMs = offsetMs
  return {
    read: (trueMs) => Math.floor(trueMs + aheadMs + (trueMs - startMs) * drift),
    jump(byMs) {
      aheadMs += byMs
    },
  }
}

/** Draws how far a clock is off, or how far it jumps. */
export function drawOffsetMs(chance: Chance): number {
  const size = chance.pick([NEAR_MS, MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, 12 * HOUR_MS, DAY_MS])
  return chance.pick([-1, 1]) * size * chance.between(1, 1.2)
}
