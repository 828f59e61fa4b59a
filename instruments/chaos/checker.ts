import { join } from 'node:path'
import type { Letter } from '../../apps/audit/findings.ts'
import { audit } from '../../apps/audit/invariants.ts'
import { lettersIn } from '../../apps/audit/maildir.ts'
import type { BusMessage } from '../../messaging/bus.ts'
import { createKafkaBus } from '../../messaging/kafka/bus.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { wholeLog } from '../../tests/e2e/whole-log.ts'
import { type ServiceDatabases, untilAtRest } from '../../tests/support/at-rest.ts'
import type { Stack } from '../../tools/stack/stack.ts'
import { checkHistory } from '../simulation/checks/history.ts'
import type { Times } from '../simulation/checks/punctuality.ts'
import { type Finding, readTables, type Tables } from '../simulation/checks/tables.ts'
import { isFinal, type Operation } from '../simulation/world/customers.ts'

/** The evidence that a run leaves behind. */
export interface Evidence {
  /** Read back from the history file. */
  readonly operations: readonly Operation[]
  readonly databases: ServiceDatabases
  readonly topics: readonly BusMessage[]
  readonly letters: readonly Letter[]
  readonly times: Times
}

export interface Verdict {
  readonly findings: readonly Finding[]
  /** How many of each kind were checked, by invariant and kind, such as `I3 orders`. */
  readonly checked: ReadonlyMap<string, number>
  readonly tables: Tables
}

/**
 * Checks a run that has come to rest: the invariants in databases, topics and letters, and the responses to
 * customers against the tables.
 */
export async function check(evidence: Evidence): Promise<Verdict> {
  const { operations, databases, topics, letters, times } = evidence
  const checked = new Map<string, number>()
  const note = (what: string, count: number) => checked.set(what, (checked.get(what) ?? 0) + count)
  const tables = await readTables(databases)
  const violations = await audit(
    { ...databases, topics, letters, now: Date.now(), settled: true },
    (invariant, count, what) => note(`${invariant} ${what}`, count),
  )
  const findings: Finding[] = [...violations, ...checkHistory(operations, tables, letters, times)]
  note('history requests', operations.length)
  // A customer who retries under a key must get a final response in the end.
  for (const { intent, key, attempts } of operations) {
    if (key === undefined || attempts.some(isFinal)) continue
    const sentence = `was sent ${attempts.length} times and never got a final response`
    findings.push({ invariant: 'I4', subject: `${intent.kind} ${key}`, sentence })
  }
  return { findings, checked, tables }
}

export interface OpenedStack {
  readonly databases: ServiceDatabases
  /**
   * Resolves when no table and no topic holds unfinished work; after `limitMs`, rejects with a list of the
   * unfinished work.
   */
  untilAtRest(limitMs: number): Promise<void>
  /** Reads all evidence except the history. */
  evidence(): Promise<Pick<Evidence, 'databases' | 'topics' | 'letters'>>
  close(): Promise<void>
}

/** Opens the databases, topics and letters of a stack directly, without the proxies. */
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
    untilAtRest: (limitMs) => untilAtRest({ databases, brokers }, limitMs),
    async evidence() {
      const bus = await createKafkaBus({
        brokers,
        clientId: 'chaos',
        runtime: systemRuntime,
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
