import type { PlannedKind, Profile } from './profiles.ts'
import type { Chance } from './world/chance.ts'

/** Something that goes wrong at a time, whatever the processes do then. */
export interface Planned {
  /** Unique in its run. */
  readonly name: string
  readonly kind: PlannedKind
  readonly afterMs: number
  /** How long it lasts, where it lasts. */
  readonly durationMs: number
  /** Decides whom it hits, of so many; from 0 to 1. */
  readonly draw: number
}

/** Before that customers have hardly begun. */
const EARLIEST_MS = 700
/** Everything that is planned begins within this time of the start. */
export const PLAN_MS = 6_000

const LONGEST_MS: Readonly<Record<PlannedKind, number>> = {
  crash: 2_000,
  // Longer than the lease of a relay's lanes and than a server lets a transaction idle.
  freeze: 25_000,
  hang: 0,
  'clock jump': 0,
  'service away': 6_000,
  'broker away': 20_000,
  'broker slow': 8_000,
  'database away': 4_000,
  // Long enough for a batch to be given up and divided.
  rivals: 4_000,
  rebalance: 0,
  rewind: 0,
  'replay of the log': 0,
  'loss of the log': 0,
  'topic recreated': 0,
  'foreign message': 0,
}

export function drawPlan(profile: Profile, chance: Chance): Planned[] {
  const plan: Planned[] = []
  for (const [kind, most] of Object.entries(profile.events) as [PlannedKind, number][]) {
    const count = chance.integer(most + 1)
    for (let n = 1; n <= count; n += 1) {
      const afterMs = chance.between(EARLIEST_MS, PLAN_MS)
      const durationMs = LONGEST_MS[kind] * chance.next() ** 2
      const name = `${kind} ${n} after ${Math.round(afterMs)} ms`
      plan.push({ name, kind, afterMs, durationMs, draw: chance.next() })
    }
  }
  return plan
}
