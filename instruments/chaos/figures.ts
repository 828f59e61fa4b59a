import type { Finding, Tables } from '../simulation/checks/tables.ts'
import type { Operation } from '../simulation/world/customers.ts'
import type { InjectedFault } from './faults/faults.ts'

/** The result of a run. All times are epoch milliseconds. */
export interface Report extends Figures {
  readonly seed: number
  readonly style: string
  readonly minutes: number
  readonly startedMs: number
  /** When the last fault had been repaired. */
  readonly healedMs: number
  /** When no unfinished work was left. */
  readonly restMs: number
  readonly faults: readonly InjectedFault[]
  /** Why there were no disk faults; undefined if there was a disk to fill. */
  readonly withoutDisk: string | undefined
  /** How many writes failed because the disk was full. */
  readonly diskRefusals: number
  /** How many sessions PostgreSQL ended because they were idle in a transaction. */
  readonly endedSessions: number
  readonly findings: readonly Finding[]
  /** How many of each kind were checked, by invariant and kind. */
  readonly checked: Readonly<Record<string, number>>
}

export interface Figures {
  /** One entry per second, from the first request until the stack is at rest. */
  readonly seconds: readonly Second[]
  readonly requests: number
  readonly answered: number
  /** Responses with status 503, final or not. */
  readonly rejected: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly orders: Readonly<Record<'APPROVED' | 'CANCELED' | 'PENDING', number>>
  readonly ledgerEntries: number
  readonly messages: number
}

export interface Second {
  readonly requests: number
  readonly unanswered: number
  /** Latency of the requests sent in this second that got a response; undefined if there were none. */
  readonly p50Ms: number | undefined
  readonly p99Ms: number | undefined
  /** Orders that reached their final state in this second. */
  readonly settled: number
}

export function figuresOf(
  operations: readonly Operation[],
  { orders, entries, messages }: Tables,
  { startedMs, endMs }: { readonly startedMs: number; readonly endMs: number },
): Figures {
  const attempts = operations.flatMap((operation) => operation.attempts)
  const length = Math.max(1, Math.ceil((endMs - startedMs) / 1_000))
  const secondOf = (timeMs: number) => Math.floor((timeMs - startedMs) / 1_000)
  const bySecond = Map.groupBy(attempts, ({ sentMs }) => secondOf(sentMs))
  const settled = Map.groupBy(
    orders.filter(({ state }) => state !== 'PENDING'),
    ({ updated }) => secondOf(updated.getTime()),
  )
  const seconds = Array.from({ length }, (_, second): Second => {
    const own = bySecond.get(second) ?? []
    const latencies = latenciesOf(own)
    return {
      requests: own.length,
      unanswered: own.length - latencies.length,
      p50Ms: quantile(latencies, 0.5),
      p99Ms: quantile(latencies, 0.99),
      settled: settled.get(second)?.length ?? 0,
    }
  })
  const latencies = latenciesOf(attempts)
  const count = (state: string) => orders.filter((order) => order.state === state).length
  return {
    seconds,
    requests: attempts.length,
    answered: latencies.length,
    rejected: attempts.filter(({ response }) => response?.status === 503).length,
    p50Ms: quantile(latencies, 0.5) ?? 0,
    p99Ms: quantile(latencies, 0.99) ?? 0,
    orders: {
      APPROVED: count('APPROVED'),
      CANCELED: count('CANCELED'),
      PENDING: count('PENDING'),
    },
    ledgerEntries: entries.length,
    messages: messages.length,
  }
}

/** The latencies of the attempts that got a response, in ascending order. */
function latenciesOf(attempts: readonly Operation['attempts'][number][]): number[] {
  return attempts
    .filter(({ response }) => response !== undefined)
    .map(({ sentMs, doneMs }) => doneMs - sentMs)
    .sort((a, b) => a - b)
}

function quantile(sorted: readonly number[], part: number): number | undefined {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]
}
