import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { type Database, DatabaseError } from '../../platform/database/database.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import type { Tracer } from '../../platform/telemetry/tracing.ts'
import { openTestDatabase } from '../../tests/support/backends.ts'
import { createOutbox, outboxTables } from '../outbox/outbox.ts'
import {
  countDeadLetters,
  DEAD_LETTER_HEADER,
  type DeadLetter,
  deadLetterIdentity,
  deadLetterReplayColumns,
  deadLetterTable,
  expireDeadLetters,
  findDeadLetter,
  listDeadLetters,
  storeDeadLetters,
} from './dead-letters.ts'
import { createReplay, type ReplayOptions } from './replay.ts'

const database = await openTestDatabase()
after(() => database.close())
let schemas = 0
const bytes = (text: string) => new TextEncoder().encode(text)

/** A service that stores each word once, identified by its event id, and refuses the word `bad`. */
async function setUp(given: Partial<ReplayOptions<string>> = {}) {
  schemas += 1
  const schema = `replay_${schemas}`
  const letters =
    deadLetterTable(schema) + deadLetterReplayColumns(schema) + deadLetterIdentity(schema)
  const sql = `${letters}${outboxTables(schema)}
    create table ${schema}.word (id text primary key, text text not null check (text <> 'long'));`
  await migrate(database, schema, [{ id: 1, name: 'initial', sql }])
  const outbox = createOutbox(schema)
  const events: string[] = []
  const replay = createReplay<string>({
    database,
    schema,
    outbox,
    runtime: systemRuntime,
    log: createLog('silent', 'test'),
    relay: { wake: (tx) => events.push(`woken for ${[...outbox.writtenBy(tx).keys()]}`) },
    decode: ({ topic, partition, offset, value, headers }) => {
      const body = new TextDecoder().decode(value ?? bytes('broken'))
      if (body === 'broken') return 'it is broken'
      return { body, meta: { id: headers.ce_id ?? `${topic}/${partition}/${offset}` } }
    },
    async handle(tx, [event]) {
      const { body, meta } = event!
      if (body === 'bad') return { poison: new Map([[event!, 'bad words are refused']]) }
      if (body === 'puzzling') throw new RangeError('it puzzles')
      await tx.query(`insert into ${schema}.word (id, text) values ($1, $2)`, [meta.id, body])
      return { afterCommit: () => events.push(`notified of ${body}`) }
    },
    ...given,
  })
  let offset = 0n
  return {
    schema,
    outbox,
    events,
    replay,
    async put(letter: Partial<DeadLetter>): Promise<string> {
      offset += 1n
      const id = systemRuntime.uuid()
      const origin = { id, source: 'broker', topic: 'words', partition: 2, offset } as const
      const content = {
        key: 'k',
        value: bytes('broken'),
        headers: {},
        eventId: null,
        incarnation: '',
      }
      const cause = { code: 'UNREADABLE', reason: 'at first', created: new Date() }
      await storeDeadLetters(database, schema, [{ ...origin, ...content, ...cause, ...letter }])
      return id
    },
    words: () => database.query(`select id, text from ${schema}.word order by id`),
    left: () => countDeadLetters(database, schema),
    find: async (id: string) => (await findDeadLetter(database, schema, id))!,
  }
}

describe('a replayed message of the broker', () => {
  test('is handled in the trace in which it was sent', async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    const own = traceparent.replace('00f067aa0ba902b7', '1111111111111111')
    const recorded: unknown[] = []
    const tracer: Tracer = {
      isOn: true,
      messagingSystem: 'kafka',
      begin({ name, parent }) {
        recorded.push([name, parent])
        return { context: { traceparent: own }, end: ({ error } = {}) => recorded.push(error) }
      },
    }
    const continued: unknown[] = []
    const { replay, put } = await setUp({
      tracer,
      handle: async (_, [event]) => void continued.push(event!.meta.traceparent),
    })
    const id = await put({ value: bytes('fine'), headers: { traceparent } })
    assert.deepEqual(await replay(id), { kind: 'handled' })
    assert.deepEqual(recorded, [['process words', { traceparent }], undefined])
    assert.deepEqual(continued, [own])
  })

  test('is handled and removed, and its position remains its id', async () => {
    const { replay, put, words, left, events } = await setUp()
    const id = await put({ value: bytes('fine') })
    assert.deepEqual(await replay(id), { kind: 'handled' })
    assert.deepEqual(await words(), [{ id: 'words/2/1', text: 'fine' }])
    assert.deepEqual(events, ['notified of fine'])
    assert.equal(await left(), 0)
    assert.deepEqual(await replay(id), { kind: 'unknown' })
  })

  test('is handled with another body under the id in its headers', async () => {
    const { replay, put, words, left } = await setUp()
    const id = await put({ headers: { ce_id: 'e1' } })
    assert.deepEqual(await replay(id, { body: bytes('repaired') }), { kind: 'handled' })
    assert.deepEqual(await words(), [{ id: 'e1', text: 'repaired' }])
    assert.equal(await left(), 0)
  })

  test('takes effect once, even if it is replayed concurrently', async () => {
    const { replay, put, events, left } = await setUp()
    const id = await put({ value: bytes('fine') })
    const kinds = await Promise.all(Array.from({ length: 8 }, async () => (await replay(id)).kind))
    assert.deepEqual(kinds.sort(), ['handled', ...Array(7).fill('unknown')])
    assert.deepEqual(events, ['notified of fine'])
    assert.equal(await left(), 0)
  })

  const refusals = [
    { body: undefined, code: 'UNREADABLE', reason: /^it is broken$/ },
    { body: 'bad', code: 'REFUSED', reason: /^bad words are refused$/ },
    { body: 'long', code: 'STATEMENT_INVALID', reason: /word_text_check/ },
    { body: 'puzzling', code: 'HANDLER_FAILED', reason: /^RangeError: it puzzles$/ },
  ]
  for (const { body, code, reason } of refusals) {
    test(`stays with its bytes and the new reason when it is ${code} again`, async () => {
      const { replay, put, find, words } = await setUp()
      const id = await put({ code: 'OLD' })
      const replayed = await replay(id, { body: body === undefined ? undefined : bytes(body) })
      assert.ok(replayed.kind === 'refused')
      assert.match(replayed.reason, reason)
      const letter = await find(id)
      assert.equal(letter.code, code)
      const edited = body === undefined ? '' : 'replayed with another body: '
      assert.equal(letter.reason, `${edited}${replayed.reason}`)
      assert.deepEqual(letter.value, bytes('broken'))
      assert.deepEqual(await words(), [])
    })
  }

  test('stays unchanged while the database is down', async () => {
    let isAway = true
    const away: Database = {
      ...database,
      transaction: (work) =>
        isAway
          ? Promise.reject(new DatabaseError('the database is down', 'unavailable'))
          : database.transaction(work),
    }
    const { replay, put, find } = await setUp({ database: away })
    const id = await put({ value: bytes('fine') })
    await assert.rejects(replay(id), { kind: 'unavailable' })
    assert.equal((await find(id)).reason, 'at first')
    isAway = false
    assert.deepEqual(await replay(id), { kind: 'handled' })
  })

  test('is retried at once when its transaction loses a conflict', async () => {
    let conflicts = 3
    const { replay, put } = await setUp({
      async handle() {
        if (conflicts-- > 0) throw new DatabaseError('another transaction won', 'conflict')
      },
    })
    assert.deepEqual(await replay(await put({ value: bytes('fine') })), { kind: 'handled' })
  })
})

describe('a replayed outbox row', () => {
  const row = { source: 'outbox', topic: 'http:/calls?a=b:c', key: 'k', partition: 0 } as const

  test('goes back into the outbox under its event id, and the relay is woken', async () => {
    const { replay, put, outbox, left, events } = await setUp()
    const headers = { 'content-type': 'application/json' }
    const id = await put({ ...row, value: bytes('{"n":1}'), headers, eventId: 'e1' })
    assert.deepEqual(await replay(id), { kind: 'queued' })
    assert.equal(await left(), 0)
    assert.deepEqual(events, ['woken for http'])
    const lanes = [0, 1, 2, 3, 4, 5, 6, 7]
    const tried = { done: [], postponed: [], free: [] }
    const wanted = { lanes, busyKeys: [], room: 10 }
    const { rows } = await outbox.takeCalls(database, 'http', tried, wanted)
    const taken = rows.map(({ id: _, ...rest }) => rest)
    const destination = '/calls?a=b:c'
    const back = { carrier: 'http', destination, key: 'k', eventId: 'e1', body: '{"n":1}' }
    const itsHeaders = { ...headers, [DEAD_LETTER_HEADER]: id }
    assert.deepEqual(taken, [{ ...back, headers: itsHeaders, attempts: 0 }])
  })

  test('gets the event id from its headers if it was stored without one', async () => {
    const { replay, put, schema } = await setUp()
    await replay(await put({ ...row, headers: { 'idempotency-key': 'key' } }))
    await replay(await put({ ...row, headers: { ce_id: 'ce' } }))
    const unnamed = await put(row)
    await replay(unnamed)
    assert.deepEqual(await database.query(`select event_id from ${schema}.outbox order by id`), [
      { event_id: 'key' },
      { event_id: 'ce' },
      { event_id: unnamed },
    ])
  })
})

test('a dead letter is stored once; a different message at the same position is another dead letter', async () => {
  const { put, left } = await setUp()
  const at = { topic: 'words', partition: 0, offset: 7n }
  for (const value of [bytes('one'), bytes('one'), bytes('other'), null])
    await put({ ...at, value })
  assert.equal(await left(), 3)
  await put({ ...at, value: bytes('one'), headers: { ce_id: '1' } })
  await put({ ...at, value: bytes('one'), incarnation: 'later' })
  await put({ ...at, value: bytes('one'), incarnation: 'later' })
  assert.equal(await left(), 5)
})

describe('a replayed letter', () => {
  const letter = { source: 'outbox', topic: 'letter:old@example.org', key: 'anna' } as const
  const waiting = (schema: string) =>
    database.query<{ destination: string; headers: string }>(
      `select destination, headers from ${schema}.outbox`,
    )

  test('goes to its old address or to the current contact', async () => {
    const currentAddress = async () => 'new@example.org'
    const { put, replay, schema } = await setUp({ currentAddress })
    const headers = { 'message-id': '<m-1@trifold>' }
    const id = await put({ ...letter, headers })
    assert.deepEqual(await replay(id), { kind: 'queued' })
    await replay(await put({ ...letter, headers }), { toCurrent: true })
    const rows = await waiting(schema)
    const destinations = rows.map(({ destination }) => destination)
    assert.deepEqual(destinations, ['old@example.org', 'new@example.org'])
    for (const row of rows) assert.match(row.headers, /<m-1@trifold>/)
    assert.equal(JSON.parse(rows[0]!.headers)[DEAD_LETTER_HEADER], id)
  })

  test('stays if the account has no contact, or if it is not a letter', async () => {
    const { put, replay, left } = await setUp({ currentAddress: async () => undefined })
    const reason = 'the account has no contact'
    const toCurrent = { toCurrent: true }
    assert.deepEqual(await replay(await put(letter), toCurrent), { kind: 'refused', reason })
    for (const topic of ['http:/orders', 'words']) {
      const { kind } = await replay(await put({ ...letter, topic }), toCurrent)
      assert.equal(kind, 'refused')
    }
    assert.equal(await left(), 3)
  })
})

test('dead letters are deleted after thirty days', async () => {
  const { put, schema, find } = await setUp()
  const [old, young] = [await put({}), await put({})]
  await database.query(
    `update ${schema}.dead_letter set created = created - interval '31 days' where id = $1`,
    [old],
  )
  assert.equal(await expireDeadLetters(database, schema), 1)
  assert.equal(await find(old), undefined)
  assert.equal((await find(young)).id, young)
})

describe('the list of dead letters', () => {
  test('is paged, oldest first', async () => {
    const { put, schema } = await setUp()
    const ids: string[] = []
    for (let n = 0; n < 5; n += 1) ids.push(await put({}))
    const read: string[] = []
    let cursor: bigint | undefined = 0n
    while (cursor !== undefined) {
      const page = await listDeadLetters(database, schema, { limit: 2, cursor: String(cursor) })
      read.push(...page.deadLetters.map(({ id }) => id))
      cursor = page.next
    }
    assert.deepEqual(read, ids)
  })

  test('ends a page early when bodies are large, and continues on the next page', async () => {
    const { put, schema } = await setUp()
    const value = new Uint8Array(1_000_000)
    for (let n = 0; n < 6; n += 1) await put({ value })
    const first = await listDeadLetters(database, schema, { limit: 100 })
    assert.equal(first.deadLetters.length, 5)
    const cursor = String(first.next)
    const second = await listDeadLetters(database, schema, { limit: 100, cursor })
    assert.deepEqual([second.deadLetters.length, second.next], [1, undefined])
  })

  test('includes dead letters stored before paging existed, in their order', async () => {
    const schema = 'replay_older'
    await migrate(database, schema, [{ id: 1, name: 'initial', sql: deadLetterTable(schema) }])
    const ids = [systemRuntime.uuid(), systemRuntime.uuid()]
    await database.query(
      `insert into ${schema}.dead_letter
         (id, source, topic, partition, "offset", headers, code, reason, created)
       select id, 'broker', 'words', 0, n, '{}', 'REFUSED', 'at first', now()
       from unnest($1::uuid[]) with ordinality as letter (id, n)`,
      [ids],
    )
    const sql = deadLetterReplayColumns(schema) + deadLetterIdentity(schema)
    await migrate(database, schema, [
      { id: 1, name: 'initial', sql: '' },
      { id: 2, name: 'replay', sql },
    ])
    const { deadLetters } = await listDeadLetters(database, schema, { limit: 10 })
    assert.deepEqual(
      deadLetters.map(({ id }) => id),
      ids,
    )
    assert.equal(deadLetters[0]?.eventId, null)
  })
})
