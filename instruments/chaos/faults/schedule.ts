import { type Chance, createChances } from '../../simulation/world/chance.ts'
import type { Toxic, ToxicKind } from './proxy.ts'

/** The network links that have a proxy. */
export const LINKS = [
  'customers → nginx',
  'order → nginx',
  'billing → nginx',
  'order → Kafka',
  'billing → Kafka',
  'notification → Kafka',
  'order → PostgreSQL',
  'billing → PostgreSQL',
  'notification → PostgreSQL',
] as const
export type Link = (typeof LINKS)[number]

export const REPLICAS = [
  'order 1',
  'order 2',
  'billing 1',
  'billing 2',
  'notification 1',
  'notification 2',
] as const
export type ReplicaTarget = (typeof REPLICAS)[number]

export const PROCESSES = ['Kafka', 'PostgreSQL', ...REPLICAS] as const
export type ProcessTarget = (typeof PROCESSES)[number]

export const DISK = 'small disk'

/** In the order in which a report shows them. */
export const TARGETS = [...LINKS, ...PROCESSES, DISK] as const
export type Target = (typeof TARGETS)[number]

/** A fault that affects one target and is repaired later. */
export type Fault =
  | { readonly kind: 'toxic'; readonly target: Link; readonly toxic: Toxic; readonly share: number }
  /** SIGKILL, and a start later. */
  | { readonly kind: 'kill'; readonly target: ProcessTarget }
  /** SIGSTOP, and SIGCONT later: connections stay open and get no response. */
  | { readonly kind: 'freeze'; readonly target: ProcessTarget }
  /** SIGSTOP while a transaction is open, and SIGCONT before or after the server has ended the session. */
  | {
      readonly kind: 'freeze in transaction'
      readonly target: ReplicaTarget
      readonly outlastsSession: boolean
    }
  /** SIGKILL and a start with a clock that is ahead or behind; later SIGKILL and a start with the right clock. */
  | { readonly kind: 'wrong clock'; readonly target: ReplicaTarget; readonly offsetMs: number }
  /** No free byte is left on the disk. */
  | { readonly kind: 'full'; readonly target: typeof DISK }

export interface Planned {
  readonly fault: Fault
  /** Milliseconds from the start of the run. */
  readonly afterMs: number
  readonly forMs: number
}

/** The name of a fault in logs and reports: `disk full`, the kind of the toxic, or the kind of the fault. */
export function nameOf(fault: Fault): string {
  if (fault.kind === 'full') return 'disk full'
  return fault.kind === 'toxic' ? fault.toxic.kind : fault.kind
}

type Card =
  | readonly ['kill' | 'freeze', readonly ProcessTarget[]]
  | readonly ['freeze in transaction', 'short' | 'long']
  | readonly [ToxicKind | 'wrong clock' | 'full']

/** Faults are drawn from a shuffled deck: no kind exceeds its number of cards before each has had its turn. */
const DECK: readonly Card[] = [
  ['kill', REPLICAS],
  ['kill', REPLICAS],
  ['kill', REPLICAS],
  ['freeze', REPLICAS],
  ['freeze', REPLICAS],
  ['kill', ['Kafka']],
  ['freeze', ['Kafka']],
  ['kill', ['PostgreSQL']],
  ['freeze', ['PostgreSQL']],
  ['freeze in transaction', 'short'],
  ['freeze in transaction', 'long'],
  ['wrong clock'],
  ['wrong clock'],
  ['full'],
  ['latency'],
  ['slow'],
  ['stall'],
  ['stall'],
  ['half-open'],
  ['half-open'],
  ['cut'],
  ['reset'],
  ['reset'],
]

/** The range of the time from the start of one fault of a deck to the start of the next. */
const GAP_MS = [1_000, 4_500] as const
/** A pause after each deck, in which all targets can recover and their recovery is visible. */
const CALM_MS = 8_000
const FIRST_MS = 2_000
/**
 * How long faults last: the longest outlast the time-outs that detect an unresponsive server (5 s for pools and
 * calls, 10 s for the broker). Longer faults would only add waiting.
 */
const LENGTH_MS = {
  kill: [500, 8_000],
  freeze: [1_000, 14_000],
  'freeze in transaction': [1_000, 8_000],
  'wrong clock': [3_000, 12_000],
  full: [4_000, 10_000],
  toxic: [2_000, 12_000],
} as const satisfies Record<Fault['kind'], readonly [number, number]>
/** PostgreSQL ends a session that has been idle in a transaction for 10 s. */
const OUTLASTS_SESSION_MS = [12_000, 16_000] as const
const HOUR_MS = 3_600_000
/** Idempotency keys are kept for a day. */
const CLOCK_OFFSETS_MS = [HOUR_MS, -HOUR_MS, 25 * HOUR_MS]
/** Without PostgreSQL no work makes progress, so a longer outage finds no further faults. */
const LONGEST_WITHOUT_DATABASE_MS = 6_000
/** The time a target gets to recover before its next fault, or before the run ends. */
const RECOVERY_MS = { Kafka: 12_000, PostgreSQL: 12_000, other: 4_000 } as const

export interface ScheduleOptions {
  readonly seed: number
  readonly lengthMs: number
  /** Whether there is a small disk. */
  readonly withDisk: boolean
}

/**
 * The faults of a run, in the order in which they begin; equal options give equal faults. A target has one fault at
 * a time, and each fault is over, including the target's time to recover, before the run ends.
 */
export function drawSchedule({ seed, lengthMs, withDisk }: ScheduleOptions): Planned[] {
  const chance = createChances(seed)('schedule')
  const planned: Planned[] = []
  const freeMs = new Map<Target, number>()
  let deck: Card[] = []
  for (let atMs = FIRST_MS; atMs < lengthMs; ) {
    if (deck.length === 0) {
      if (planned.length > 0) atMs += CALM_MS
      deck = chance.shuffled(DECK.filter(([kind]) => withDisk || kind !== 'full'))
    }
    const card = deck.pop()!
    const isFree = (target: Target) => (freeMs.get(target) ?? 0) <= atMs
    const fault = faultOf(card, isFree, chance)
    // A card is skipped if all of its targets have a fault already, or if the run ends too soon.
    if (fault) {
      const recoveryMs = recoveryOf(fault.target)
      const [shortest, usual] = lengthOf(fault)
      const isDatabase = fault.target === 'PostgreSQL'
      const longest = isDatabase ? LONGEST_WITHOUT_DATABASE_MS : usual
      const forMs = Math.round(chance.between(shortest, longest))
      const roomMs = lengthMs - recoveryMs - atMs
      const endMs = atMs + Math.min(forMs, roomMs)
      if (roomMs >= shortest) {
        freeMs.set(fault.target, endMs + recoveryMs)
        planned.push({ fault, afterMs: atMs, forMs: endMs - atMs })
      }
    }
    atMs += Math.round(chance.between(...GAP_MS))
  }
  return planned
}

function lengthOf(fault: Fault): readonly [number, number] {
  const isLong = fault.kind === 'freeze in transaction' && fault.outlastsSession
  return isLong ? OUTLASTS_SESSION_MS : LENGTH_MS[fault.kind]
}

function faultOf(
  card: Card,
  isFree: (target: Target) => boolean,
  chance: Chance,
): Fault | undefined {
  const [kind, targets] = card
  if (kind === 'full') return isFree(DISK) ? { kind, target: DISK } : undefined
  if (kind === 'kill' || kind === 'freeze') {
    const free = targets.filter(isFree)
    return free.length > 0 ? { kind, target: chance.pick(free) } : undefined
  }
  if (kind === 'freeze in transaction' || kind === 'wrong clock') {
    const free = REPLICAS.filter(isFree)
    if (free.length === 0) return undefined
    const target = chance.pick(free)
    return kind === 'wrong clock'
      ? { kind, target, offsetMs: chance.pick(CLOCK_OFFSETS_MS) }
      : { kind, target, outlastsSession: targets === 'long' }
  }
  const links = LINKS.filter(isFree)
  if (links.length === 0) return undefined
  // A fault of half of the connections differs from one of all connections: the service goes on with the
  // other half.
  const share = chance.pick([1, 1, 0.5])
  return { kind: 'toxic', target: chance.pick(links), toxic: toxicOf(kind, chance), share }
}

function toxicOf(kind: ToxicKind, chance: Chance): Toxic {
  switch (kind) {
    case 'latency': {
      const delayMs = chance.pick([50, 200, 800])
      return { kind, delayMs, jitterMs: delayMs / 2 }
    }
    case 'slow':
      return { kind, bytesPerSecond: chance.pick([2_000, 20_000]) }
    default:
      return { kind }
  }
}

function recoveryOf(target: Target): number {
  return target === 'Kafka' || target === 'PostgreSQL' ? RECOVERY_MS[target] : RECOVERY_MS.other
}
