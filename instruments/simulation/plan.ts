import type { PlannedKind, Profile } from './profiles.ts'
import type { Chance } from './world/chance.ts'

/** A fault that happens at a planned time, whatever the processes are doing then. */
export interface Planned {
  /** Unique within the run. */
  readonly name: string
  readonly kind: PlannedKind
  readonly afterMs: number
  /** How long the fault lasts; 0 for a momentary one. */
  readonly durationMs: number
  /** A number from 0 to 1 that selects the target among the processes, services, groups or topics. */
  readonly draw: number
}

/** Before this time customers have hardly started. */
const EARLIEST_MS = 700
/** Every planned fault begins within this time after the start. */
export const PLAN_MS = 6_000

const LONGEST_MS: Readonly<Record<PlannedKind, number>> = {
  crash: 2_000,
  // Longer than a lane's lease, and longer than the server lets a transaction idle.
  freeze: 25_000,
  hang: 0,
  'clock jump': 0,
  'service down': 6_000,
  'broker down': 20_000,
  'broker slow': 8_000,
  'database down': 4_000,
  // Long enough for a batch to fail for good and be split.
  conflicts: 4_000,
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
