import { setTimeout as sleep } from 'node:timers/promises'
import { Admin } from '@platformatic/kafka'
import { TOPICS } from '../../messaging/topics.ts'
import type { Queryable } from '../../platform/database/database.ts'

/** The services' databases and broker, for an instrument that waits until all work is done. */
export interface Workplace {
  readonly databases: ServiceDatabases
  readonly brokers: readonly string[]
}

export interface ServiceDatabases {
  readonly orders: Queryable
  readonly billing: Queryable
  readonly notification: Queryable
}

const POLL_MS = 200

/**
 * Resolves when the stack has no unfinished work: no outbox row, no order, deposit or request whose outcome
 * is open, and no message that its consumer group has not committed. Rejects after the limit with a list of
 * the unfinished work.
 */
export async function untilAtRest(workplace: Workplace, limitMs: number): Promise<void> {
  const deadlineMs = performance.now() + limitMs
  // One poll can miss work that moves from one place to another while the places are read, but two polls in a
  // row cannot.
  for (let emptyPolls = 0; emptyPolls < 2; ) {
    const left = await unfinishedWork(workplace).catch((error: Error) => [error.message])
    emptyPolls = left.length === 0 ? emptyPolls + 1 : 0
    if (left.length > 0 && performance.now() > deadlineMs) {
      throw new Error(`not at rest after ${limitMs / 1_000} s: ${left.join(', ')}`)
    }
    await sleep(POLL_MS)
  }
}

/** Each place that holds unfinished work, with the number of rows or messages. */
async function unfinishedWork({ databases, brokers }: Workplace): Promise<string[]> {
  const { orders, billing, notification } = databases
  const counts = await Promise.all([
    orders.query<Count>(`
      select 'orders.outbox' as place, count(*)::int as count from orders.outbox
      union all select 'orders.watch', count(*)::int from orders.watch
      union all select 'orders.void_watch', count(*)::int from orders.void_watch
      union all select 'orders.idempotency', count(*)::int from orders.idempotency where status is null`),
    billing.query<Count>(`
      select 'billing.outbox' as place, count(*)::int as count from billing.outbox
      union all select 'billing.deposit', count(*)::int from billing.deposit where state = 'REQUESTED'`),
    notification.query<Count>(`
      select 'notification.outbox' as place, count(*)::int as count from notification.outbox`),
    unread(brokers),
  ])
  return counts
    .flat()
    .filter(({ count }) => count > 0)
    .map(({ place, count }) => `${count} in ${place}`)
}

interface Count {
  readonly place: string
  readonly count: number
}

/** The topics that each service reads; the service's name is also the name of its group. */
const READ_BY = { order: ['payment'], billing: ['billing'], notification: ['payment'] } as const

/** The messages of each topic that a group has not committed. */
async function unread(brokers: readonly string[]): Promise<Count[]> {
  const admin = new Admin({ clientId: 'at-rest', bootstrapBrokers: [...brokers], retries: 5 })
  try {
    const names: readonly string[] = Object.values(READ_BY).flat()
    const ends = await admin.listOffsets({
      topics: TOPICS.filter(({ name }) => names.includes(name)).map(({ name, partitions }) => ({
        name,
        partitions: Array.from({ length: partitions }, (_, partitionIndex) => ({
          partitionIndex,
          timestamp: -1n,
        })),
      })),
    })
    const groups = await admin.listConsumerGroupOffsets({ groups: Object.keys(READ_BY) })
    return Object.entries(READ_BY).flatMap(([group, topics]) => {
      const committed = groups.find(({ groupId }) => groupId === group)?.topics ?? []
      return topics.map((topic) => {
        const own = committed.find(({ name }) => name === topic)?.partitions ?? []
        const lags = (ends.find(({ name }) => name === topic)?.partitions ?? []).map((end) => {
          const at = own.find(({ partitionIndex }) => partitionIndex === end.partitionIndex)
          // A partition that never had a message has no committed offset.
          return end.offset - (at && at.committedOffset >= 0n ? at.committedOffset : 0n)
        })
        const count = Number(lags.reduce((sum, lag) => sum + lag, 0n))
        return { place: `topic ${topic} for group ${group}`, count }
      })
    })
  } finally {
    await admin.close()
  }
}
