import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../../platform/async/until.ts'
import type { FragileStack } from './fragile-stack.ts'
import { type Fault, nameOf, type Planned, type ReplicaTarget, type Target } from './schedule.ts'
import type { SmallDisk } from './small-disk.ts'

/** A fault as it took place. */
export interface Struck {
  readonly target: Target
  readonly name: string
  /** What is to be known beside its name. */
  readonly detail: string
  /** Epoch milliseconds. */
  readonly beganMs: number
  /** When it was put right; a server that was killed answers again by then. */
  readonly endedMs: number
  /** What must not be, as the server saw it when the fault ended. */
  readonly violation?: string
}

export interface FaultsOptions {
  readonly stack: Pick<
    FragileStack,
    'processes' | 'ways' | 'disk' | 'sessions' | 'setClock' | 'isReady'
  >
  readonly schedule: readonly Planned[]
  /** Ends the run early: what is wrong is put right, and nothing else begins. */
  readonly signal: AbortSignal
  readonly say: (line: string) => void
}

/** Lets the faults of a schedule happen from now on; resolves when the last one is put right. */
export async function letHappen(options: FaultsOptions): Promise<Struck[]> {
  const { schedule, signal } = options
  const begunMs = performance.now()
  const struck: Struck[] = []
  // A start may take longer than was planned for it, and what comes next waits for it.
  const chains = new Map<Target, Promise<unknown>>()
  for (const planned of schedule) {
    await pause(planned.afterMs - (performance.now() - begunMs), signal)
    if (signal.aborted) break
    const { target } = planned.fault
    const before = chains.get(target) ?? Promise.resolve()
    chains.set(
      target,
      before.then(async () => struck.push(await strike(planned, options))),
    )
  }
  await Promise.all(chains.values())
  return struck.toSorted((a, b) => a.beganMs - b.beganMs)
}

async function strike({ fault, forMs }: Planned, options: FaultsOptions): Promise<Struck> {
  const { signal, say } = options
  const name = nameOf(fault)
  const detail = detailOf(fault)
  const beganMs = Date.now()
  say(`${name}: ${fault.target}${detail && `, ${detail}`}, for ${(forMs / 1_000).toFixed(1)} s`)
  const heal = await hurt(fault, options)
  await pause(forMs, signal)
  const violation = await heal()
  const struck = { target: fault.target, name, detail, beganMs, endedMs: Date.now() }
  return typeof violation === 'string' ? { ...struck, violation } : struck
}

/** Puts a fault right. Resolves with a sentence about what was found that must not be, if anything. */
type Heal = () => unknown

async function hurt(fault: Fault, options: FaultsOptions): Promise<Heal> {
  const { stack } = options
  switch (fault.kind) {
    case 'toxic': {
      const proxy = stack.ways.get(fault.target)!
      proxy.poison(fault.toxic, fault.share)
      return proxy.heal
    }
    case 'kill': {
      const server = stack.processes.get(fault.target)!
      await server.kill()
      return server.start
    }
    case 'freeze': {
      const server = stack.processes.get(fault.target)!
      await server.freeze()
      return server.thaw
    }
    case 'freeze in transaction':
      return freezeInTransaction(fault.target, options)
    case 'wrong clock':
      return await setWrongClock(fault.target, fault.offsetMs, options)
    case 'full': {
      const disk = stack.disk as SmallDisk
      disk.fill()
      // What is given back elsewhere is taken at once.
      const filling = setInterval(disk.fill, REFILL_MS)
      return () => {
        clearInterval(filling)
        disk.free()
      }
    }
  }
}

const REFILL_MS = 250

const SEARCH_LIMIT_MS = 10_000
const SEARCH_PAUSE_MS = 15
/** By then what a replica had sent before it was frozen has reached the server, and running statements are over. */
const SETTLE_MS = 20

/**
 * Freezes a replica at random moments until one is between two statements of a transaction. Where none is found,
 * because the database is away or nothing is to be done, the replica stays frozen as it is.
 */
async function freezeInTransaction(
  target: ReplicaTarget,
  { stack, signal, say }: FaultsOptions,
): Promise<Heal> {
  const { sessions } = stack
  const server = stack.processes.get(target)!
  const limitMs = performance.now() + SEARCH_LIMIT_MS
  for (;;) {
    await server.freeze()
    await sleep(SETTLE_MS)
    const open = await sessions.idleTransactions(target, SETTLE_MS / 2).catch(() => 0)
    if (open > 0) break
    if (performance.now() > limitMs || signal.aborted) {
      say(`freeze in transaction: ${target} is frozen, but had no transaction open`)
      break
    }
    await server.thaw()
    await pause(Math.random() * SEARCH_PAUSE_MS, signal)
  }
  return async () => {
    const held = () => sessions.idleTransactions(target, SESSION_LIMIT_MS).catch(() => 0)
    const isReleased = until(async () => (await held()) === 0, { limitMs: GRACE_MS })
    const violation = await isReleased.then(
      () => undefined,
      () => 'was frozen in a transaction that was still open past its time-out',
    )
    await server.thaw()
    return violation
  }
}

/** The server ends the session of a service that is idle in a transaction for 10 s. */
const SESSION_LIMIT_MS = 11_000
/** A server that was frozen too ends the session when it goes on. */
const GRACE_MS = 3_000

async function setWrongClock(
  target: ReplicaTarget,
  offsetMs: number,
  { stack, signal }: FaultsOptions,
): Promise<Heal> {
  const { processes, sessions, setClock } = stack
  const server = processes.get(target)!
  await server.kill()
  setClock(target, offsetMs)
  await server.start()
  // A process that has not started yet does nothing wrong. What it needs may be away, though.
  const isReady = until(() => stack.isReady(target), { limitMs: START_LIMIT_MS, signal })
  await isReady.catch(() => undefined)
  return async () => {
    await server.kill()
    const leasedMs = await sessions.leasedMs(target).catch(() => 0)
    setClock(target, 0)
    await server.start()
    if (leasedMs > LEASE_MS)
      return `died, and relay lanes stay leased for ${Math.round(leasedMs / 1_000)} s`
  }
}

const START_LIMIT_MS = 20_000
/** Of relay lanes. */
const LEASE_MS = 10_000

function detailOf(fault: Fault): string {
  if (fault.kind === 'wrong clock') {
    const { offsetMs } = fault
    return `${Math.abs(offsetMs) / 3_600_000} h ${offsetMs > 0 ? 'ahead' : 'behind'}`
  }
  if (fault.kind === 'freeze in transaction') {
    return fault.outlastsSession ? 'longer than the server keeps its session' : ''
  }
  if (fault.kind !== 'toxic') return ''
  const { toxic, share } = fault
  const half = share < 1 ? ['half of the connections'] : []
  if (toxic.kind === 'latency') return [`${toxic.delayMs} ms`, ...half].join(', ')
  if (toxic.kind === 'slow') return [`${toxic.bytesPerSecond} bytes a second`, ...half].join(', ')
  return half.join('')
}

/** Less long where the signal ends it. */
async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  if (durationMs > 0) await sleep(durationMs, undefined, { signal }).catch(() => undefined)
}
