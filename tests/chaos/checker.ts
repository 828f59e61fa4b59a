import { join } from 'node:path'
import { Admin } from '@platformatic/kafka'
import type { Letter } from '../../apps/audit/findings.ts'
import { audit } from '../../apps/audit/invariants.ts'
import { lettersIn } from '../../apps/audit/maildir.ts'
import type { BusMessage } from '../../messaging/bus.ts'
import { createKafkaBus } from '../../messaging/kafka-bus.ts'
import { TOPICS } from '../../messaging/topics.ts'
import type { Database, Queryable } from '../../platform/database.ts'
import { openPostgres } from '../../platform/postgres.ts'
import { systemRuntime } from '../../platform/runtime.ts'
import { createLog } from '../../platform/telemetry.ts'
import type { Stack } from '../../tools/stack.ts'
import { wholeLog } from '../e2e/whole-log.ts'
import { type Books, type Finding, readBooks } from '../simulation/books.ts'
import { type Deed, isFinal } from '../simulation/customers.ts'
import { checkHistory } from '../simulation/history.ts'
import type { Times } from '../simulation/punctuality.ts'

/** All that is left when a run is over. */
export interface Evidence {
  /** As the history file has them. */
  readonly deeds: readonly Deed[]
  readonly databases: Databases
  readonly topics: readonly BusMessage[]
  readonly letters: readonly Letter[]
  readonly times: Times
}

export interface Databases {
  readonly orders: Queryable
  readonly billing: Queryable
  readonly notification: Queryable
}

export interface Verdict {
  readonly findings: readonly Finding[]
  /** How much was looked at: `I3 orders` and the like, with their number. */
  readonly checked: ReadonlyMap<string, number>
  readonly books: Books
}

/**
 * Everything that must be true of a run that has come to rest: the invariants, on databases, topics and
 * letters; and what customers were told, against the books.
 */
export async function check(evidence: Evidence): Promise<Verdict> {
  const { deeds, databases, topics, letters, times } = evidence
  const checked = new Map<string, number>()
  const note = (what: string, count: number) => checked.set(what, (checked.get(what) ?? 0) + count)
  const books = await readBooks(databases)
  const violations = await audit(
    { ...databases, topics, letters, now: Date.now(), settled: true },
    (invariant, count, what) => note(`${invariant} ${what}`, count),
  )
  const findings: Finding[] = [...violations, ...checkHistory(deeds, books, letters, times)]
  note('history requests', deeds.length)
  // A key without an answer is a customer who was left alone with his question.
  for (const { wish, key, attempts } of deeds) {
    if (key === undefined || attempts.some(isFinal)) continue
    const sentence = `was asked ${attempts.length} times and never answered for good`
    findings.push({ invariant: 'I4', subject: `${wish.kind} ${key}`, sentence })
  }
  return { findings, checked, books }
}

export interface OpenedStack {
  readonly databases: Databases
  /** Nothing waits for anything, in no table and no topic. */
  isAtRest(): Promise<boolean>
  /** What is there now, beside the history. */
  evidence(): Promise<Pick<Evidence, 'databases' | 'topics' | 'letters'>>
  close(): Promise<void>
}

/** What a checker sees of a stack, past all proxies. */
export async function openForChecks(stack: Stack): Promise<OpenedStack> {
  const { order, billing, notification } = stack.databaseUrls
  const open = (url: string) =>
    openPostgres({ url, maxConnections: 2, statementTimeoutMs: 60_000, readsWholeTables: true })
  const [orders, billed, notified] = await Promise.all([order, billing, notification].map(open))
  const databases = {
    orders: orders as Database,
    billing: billed as Database,
    notification: notified as Database,
  }
  const brokers = stack.brokers.split(',')
  const maildir = join(stack.folder, 'mail')
  return {
    databases,
    isAtRest: async () =>
      !(await waits(databases)) && (await unread(brokers)).every(({ messages }) => messages === 0n),
    async evidence() {
      const bus = await createKafkaBus({
        ...{ brokers, clientId: 'chaos', runtime: systemRuntime },
        log: createLog('silent', 'chaos'),
      })
      try {
        return { databases, topics: await wholeLog(bus), letters: await lettersIn(maildir) }
      } finally {
        await bus.close()
      }
    },
    async close() {
      await Promise.all([orders, billed, notified].map((database) => database?.close()))
    },
  }
}

async function waits({ orders, billing, notification }: Databases): Promise<boolean> {
  const rows = await Promise.all([
    orders.query<{ waits: boolean }>(`
      select exists (select from orders.outbox) or exists (select from orders.watch)
        or exists (select from orders.void_watch)
        or exists (select from orders.idempotency where status is null) as waits`),
    billing.query<{ waits: boolean }>(`
      select exists (select from billing.outbox)
        or exists (select from billing.deposit where state = 'REQUESTED') as waits`),
    notification.query<{ waits: boolean }>(
      'select exists (select from notification.outbox) as waits',
    ),
  ])
  return rows.flat().some((row) => row.waits)
}

/** By service, which is also the name of its group. */
const READ_BY = { order: ['payment'], billing: ['billing'], notification: ['payment'] } as const

interface Unread {
  readonly group: string
  readonly messages: bigint
}

/** How many messages each service has not committed. */
async function unread(brokers: readonly string[]): Promise<Unread[]> {
  const admin = new Admin({ clientId: 'chaos', bootstrapBrokers: [...brokers], retries: 5 })
  try {
    const names = Object.values(READ_BY).flat()
    const ends = await admin.listOffsets({
      topics: TOPICS.filter(({ name }) => (names as string[]).includes(name)).map((topic) => ({
        name: topic.name,
        partitions: Array.from({ length: topic.partitions }, (_, partitionIndex) => ({
          ...{ partitionIndex, timestamp: -1n },
        })),
      })),
    })
    const groups = await admin.listConsumerGroupOffsets({ groups: Object.keys(READ_BY) })
    return Object.entries(READ_BY).map(([group, topics]) => {
      const committed = groups.find(({ groupId }) => groupId === group)?.topics ?? []
      const messages = topics.map((name) => {
        const own = committed.find((topic) => topic.name === name)?.partitions ?? []
        return (ends.find((topic) => topic.name === name)?.partitions ?? []).map((end) => {
          const at = own.find(({ partitionIndex }) => partitionIndex === end.partitionIndex)
          // A partition that never had a message has no commit either.
          return end.offset - (at && at.committedOffset >= 0n ? at.committedOffset : 0n)
        })
      })
      return { group, messages: messages.flat().reduce((sum, count) => sum + count, 0n) }
    })
  } finally {
    await admin.close()
  }
}
