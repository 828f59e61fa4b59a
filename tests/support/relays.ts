import { after } from 'node:test'
import type { Bus } from '../../messaging/bus.ts'
import {
  deadLetterIdentity,
  deadLetterReplayColumns,
  deadLetterTable,
} from '../../messaging/dead-letters/dead-letters.ts'
import {
  type Carrier,
  createOutbox,
  type Delivery,
  type OutboxMessage,
  type OutboxRow,
  outboxKeyExpression,
  outboxTables,
  relayMemberPlace,
} from '../../messaging/outbox/outbox.ts'
import { createRelay, type Relay, type RelayOptions } from '../../messaging/outbox/relay.ts'
import type { Deliver } from '../../messaging/outbox/relay-calls.ts'
import { until } from '../../platform/async/until.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { createLog, createTelemetry } from '../../platform/telemetry/telemetry.ts'
import { openTestDatabase } from './backends.ts'
import { createClock } from './harness.ts'

/** Opens the database of a test file with relays; each test has its own schema in it. */
export async function openRelays() {
  const database = await openTestDatabase()
  after(() => database.close())
  // When the listener connects, all listening callbacks are called. That must not happen during a test.
  await new Promise<void>((resolve) => {
    database.listen('anything', resolve)
    void database.notify('anything')
  })
  let schemas = 0

  /** An outbox with relays under a frozen clock, so that waiting alone triggers nothing. */
  async function setUp(t: { after(work: () => Promise<void>): void }) {
    schemas += 1
    const schema = `relay_${schemas}`
    const letters =
      deadLetterTable(schema) + deadLetterReplayColumns(schema) + deadLetterIdentity(schema)
    const outboxSql = outboxTables(schema) + outboxKeyExpression(schema) + relayMemberPlace(schema)
    const sql = outboxSql + letters
    await migrate(database, schema, [{ id: 1, name: 'initial', sql }])
    const outbox = createOutbox(schema)
    const clock = createClock({ frozen: true, database })
    const { runtime } = clock
    const relays: Relay[] = []
    const start = (given: Partial<RelayOptions> & { bus?: Bus; call?: Deliver }) => {
      const { bus, call, ...options } = given
      const telemetry = createTelemetry('test')
      const log = createLog('silent', 'test')
      const relay = createRelay({
        database,
        schema,
        outbox,
        runtime,
        log,
        telemetry,
        soleProcess: true,
        ...options,
      })
      relay.start(call ? { http: call } : {}, bus)
      relays.push(relay)
      t.after(() => relay.close())
      return relay
    }
    /** Writes rows without notifying the relays. */
    const commit = (messages: readonly OutboxMessage[]) =>
      database.transaction(async (tx) => {
        await outbox.enqueue(tx, messages)
        return tx
      })
    const put = async (messages: readonly OutboxMessage[]) => {
      const committed = await commit(messages)
      for (const relay of relays) relay.wake(committed)
    }
    const waiting = () =>
      database.query<{ event_id: string; attempts: number; due: Date; last_error: string | null }>(
        `select event_id, attempts, due, last_error from ${schema}.outbox order by id`,
      )
    const isEmpty = () =>
      until(async () => (await waiting()).length === 0, { what: 'the empty outbox' })
    return { schema, clock, start, commit, put, waiting, isEmpty }
  }

  /** Waits until all code that can continue, including the database's, has run. */
  async function settle(): Promise<void> {
    for (let n = 0; n < 5; n += 1) {
      await database.query('select 1')
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  return { database, setUp, settle }
}

export const message = (
  eventId: string,
  key: string,
  carrier: Carrier = 'http',
): OutboxMessage => ({
  carrier,
  key,
  eventId,
  destination: carrier === 'broker' ? 'words' : '/calls',
  body: `{"id":"${eventId}"}`,
  headers: { ce_id: eventId },
})

/** Receives calls: it returns the delivery in `answers` for the event id, else `done`, and records every call. */
export function receiver() {
  const called: string[] = []
  const seen: OutboxRow[] = []
  const answers = new Map<string, Delivery | Promise<Delivery>>()
  const call = async (row: OutboxRow): Promise<Delivery> => {
    called.push(row.eventId)
    seen.push(row)
    return (await answers.get(row.eventId)) ?? { kind: 'done' }
  }
  return { call, called, seen, answers }
}
