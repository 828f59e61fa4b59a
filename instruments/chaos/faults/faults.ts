import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../../platform/async/until.ts'
import type { FragileStack } from './fragile-stack.ts'
import { type Fault, nameOf, type Planned, type ReplicaTarget, type Target } from './schedule.ts'
import type { SmallDisk } from './small-disk.ts'

/** A fault that took place. Times are epoch milliseconds. */
export interface InjectedFault {
  readonly target: Target
  readonly name: string
  /** The parameters of the fault, such as a delay; empty if it has none. */
  readonly detail: string
  readonly beganMs: number
  /** When the fault had been repaired: a server that was killed responds again by then. */
  readonly endedMs: number
  /** The transaction or leases that PostgreSQL wrongly still held when the fault ended, as a sentence. */
  readonly violation?: string
}

export interface FaultsOptions {
  readonly stack: Pick<
    FragileStack,
    'processes' | 'proxies' | 'disk' | 'sessions' | 'setClock' | 'isReady'
  >
  readonly schedule: readonly Planned[]
  /** Ends the run early: current faults are repaired, and no new one begins. */
  readonly signal: AbortSignal
  readonly say: (line: string) => void
}

/** Injects the faults of a schedule that starts now; resolves when the last one is repaired. */
export async function injectFaults(options: FaultsOptions): Promise<InjectedFault[]> {
  const { schedule, signal } = options
  const startedMs = performance.now()
  const injected: InjectedFault[] = []
  // A server may take longer to start than planned; the next fault of the same target waits until the server
  // is back.
  const chains = new Map<Target, Promise<unknown>>()
  for (const planned of schedule) {
    await pause(planned.afterMs - (performance.now() - startedMs), signal)
    if (signal.aborted) break
    const { target } = planned.fault
    const before = chains.get(target) ?? Promise.resolve()
    chains.set(
      target,
      before.then(async () => injected.push(await inject(planned, options))),
    )
  }
  await Promise.all(chains.values())
  return injected.toSorted((a, b) => a.beganMs - b.beganMs)
}

async function inject({ fault, forMs }: Planned, options: FaultsOptions): Promise<InjectedFault> {
  const { signal, say } = options
  const name = nameOf(fault)
  const detail = detailOf(fault)
  const beganMs = Date.now()
  say(`${name}: ${fault.target}${detail && `, ${detail}`}, for ${(forMs / 1_000).toFixed(1)} s`)
  const heal = await begin(fault, options)
  await pause(forMs, signal)
  const violation = await heal()
  const injected = { target: fault.target, name, detail, beganMs, endedMs: Date.now() }
  return typeof violation === 'string' ? { ...injected, violation } : injected
}

/** Repairs a fault. Resolves to a description of the invariant violation detected during the repair, or to undefined. */
type Heal = () => unknown

async function begin(fault: Fault, options: FaultsOptions): Promise<Heal> {
  const { stack } = options
  switch (fault.kind) {
    case 'toxic': {
      const proxy = stack.proxies.get(fault.target)!
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
      // Fills the space again that PostgreSQL frees.
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
/** Long enough for statements that a replica sent before it was frozen to reach the server and end. */
const SETTLE_MS = 20

/**
 * Freezes a replica at random moments until it is caught between two statements of a transaction. If it never
 * is, because the database is down or there is no work, the replica stays frozen outside a transaction.
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
      say(`freeze in transaction: ${target} is frozen without an open transaction`)
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

/** PostgreSQL ends a session that is idle in a transaction for 10 s; one second more allows for delays. */
const SESSION_LIMIT_MS = 11_000
/** If PostgreSQL was frozen at the same time, it ends the session only after it is thawed. */
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
  // A wrong clock has no visible effect in a process that is still starting, which may not become ready while
  // a server is down.
  const isReady = until(() => stack.isReady(target), { limitMs: START_LIMIT_MS, signal })
  await isReady.catch(() => undefined)
  return async () => {
    await server.kill()
    const leasedMs = await sessions.leasedMs(target).catch(() => 0)
    setClock(target, 0)
    await server.start()
    if (leasedMs > LEASE_MS)
      return `was killed, and relay lanes stay leased for ${Math.round(leasedMs / 1_000)} s`
  }
}

const START_LIMIT_MS = 20_000
/** How long a lease on relay lanes lasts. */
const LEASE_MS = 10_000

function detailOf(fault: Fault): string {
  if (fault.kind === 'wrong clock') {
    const { offsetMs } = fault
    return `${Math.abs(offsetMs) / 3_600_000} h ${offsetMs > 0 ? 'ahead' : 'behind'}`
  }
  if (fault.kind === 'freeze in transaction') {
    return fault.outlastsSession ? "longer than the session's time-out" : ''
  }
  if (fault.kind !== 'toxic') return ''
  const { toxic, share } = fault
  const half = share < 1 ? ['half of the connections'] : []
  if (toxic.kind === 'latency') return [`${toxic.delayMs} ms`, ...half].join(', ')
  if (toxic.kind === 'slow') return [`${toxic.bytesPerSecond} bytes a second`, ...half].join(', ')
  return half.join('')
}

/** Sleeps; the signal ends it early. */
async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  if (durationMs > 0) await sleep(durationMs, undefined, { signal }).catch(() => undefined)
}
