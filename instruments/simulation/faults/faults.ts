import type { Profile } from '../profiles.ts'
import type { Chances } from '../world/chance.ts'
import type { Life } from '../world/lives.ts'
import type { Mishap, Step, StepKind, Trouble } from './mishaps.ts'

/**
 * Decides which faults happen. Each decision has a name that is the same in every run of a seed, so a run can be
 * repeated with some of its faults left out.
 */
export interface Faults {
  mishapAt(life: Life, step: Step): Mishap | undefined
  happens(trouble: Trouble, place: string): boolean
  /** Whether a planned fault takes place: not if it is left out, or faults have stopped. */
  takesPlace(name: string): boolean
  /** No more faults happen after this call. */
  stop(): void
  /** Names of the faults that happened. */
  happened(): readonly string[]
}

export interface FaultsOptions {
  readonly chances: Chances
  readonly profile: Profile
  /** Names of faults to leave out. */
  readonly without?: ReadonlySet<string>
}

export function createFaults({ chances, profile, without }: FaultsOptions): Faults {
  const counts = new Map<string, number>()
  const happened: string[] = []
  let stopped = false

  function fires(what: string, place: string, probability: number): boolean {
    if (probability === 0) return false
    const subject = `${what}, ${place}`
    const draw = chances(`fault ${subject}`).next()
    const count = (counts.get(subject) ?? 0) + 1
    counts.set(subject, count)
    if (draw >= probability) return false
    return takesPlace(`${subject}, ${count}`)
  }

  function takesPlace(name: string): boolean {
    if (stopped || without?.has(name)) return false
    happened.push(name)
    return true
  }

  return {
    mishapAt(life, { kind, label }) {
      if (stopped) return undefined
      const place = `${life.name} ${kind} ${label}`
      for (const mishap of MISHAPS) {
        const probability = (profile.mishaps[mishap] ?? 0) * (CHANCES_OF[mishap][kind] ?? 0)
        if (fires(mishap, place, probability)) return mishap
      }
      return undefined
    },
    happens: (trouble, place) => !stopped && fires(trouble, place, profile.troubles[trouble] ?? 0),
    takesPlace,
    stop() {
      stopped = true
    },
    happened: () => happened,
  }
}

const MISHAPS: readonly Mishap[] = [
  ...(['crash before', 'crash after', 'freezes'] as const),
  ...(['fails', 'loses', 'unanswered'] as const),
]

/**
 * The probability of a mishap at each kind of step; the profile's factor multiplies it. Steps that are frequent and
 * change little have lower probabilities than steps with consequences.
 */
const CHANCES_OF: Readonly<Record<Mishap, Readonly<Partial<Record<StepKind, number>>>>> = {
  'crash before': {
    statement: 0.001,
    commit: 0.01,
    send: 0.02,
    offsets: 0.02,
    take: 0.005,
    call: 0.02,
    letter: 0.03,
  },
  'crash after': { commit: 0.03, send: 0.03, offsets: 0.01, call: 0.03, letter: 0.05 },
  freezes: {
    statement: 0.01,
    commit: 0.02,
    send: 0.03,
    offsets: 0.01,
    take: 0.01,
    call: 0.02,
    letter: 0.02,
  },
  fails: {
    statement: 0.01,
    commit: 0.03,
    send: 0.1,
    offsets: 0.1,
    take: 0.02,
    ping: 0.1,
    subscribe: 0.1,
    signal: 0.2,
    letter: 0.2,
  },
  loses: { statement: 0.01, commit: 0.03 },
  unanswered: { statement: 0.004, commit: 0.04, send: 0.1, offsets: 0.05, letter: 0.1 },
}
