// Long because all tests of the consumer share one setup: a bus, a schema and a handler.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { Received, UnknownEvent } from '../../contracts/events.ts'
import { type Log, systemRuntime } from '../../platform/async/runtime.ts'
import { until } from '../../platform/async/until.ts'
import { type Database, DatabaseError, type Queryable } from '../../platform/database/database.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { openTestBroker, openTestDatabase } from '../../tests/support/backends.ts'
import { createClock } from '../../tests/support/harness.ts'
import { message, textOf } from '../bus.conformance.ts'
import type { Bus } from '../bus.ts'
import {
  countDeadLetters,
  deadLetterIdentity,
  deadLetterReplayColumns,
  deadLetterTable,
} from '../dead-letters/dead-letters.ts'
import { partitionOf } from '../embedded/partitioner.ts'
import { type ConsumerOptions, startConsumer } from './consumer.ts'
import { type IdentifiedMessage, topicIncarnationTable } from './incarnations.ts'

const database = await openTestDatabase()
after(() => database.close())
let schemas = 0

interface Word {
  readonly text: string
  readonly key: string
}

/**
 * A bus with the topic `words`, a consumer's schema, and a handler that stores each word once, identified by its
 * position, in the order of arrival.
 */
async function setUp(t: { after(work: () => Promise<void>): void }, partitions = 1) {
  schemas += 1
  const schema = `reader_${schemas}`
  const sql = `
    create table ${schema}.word (n serial, id text primary key, key text not null, text text not null);
    ${deadLetterTable(schema)}${deadLetterReplayColumns(schema)}${deadLetterIdentity(schema)}
    ${topicIncarnationTable(schema)}`
  await migrate(database, schema, [{ id: 1, name: 'initial', sql }])
  const topics = [{ name: 'words', partitions, compacted: false }]
  const broker = await openTestBroker({ database, topics })
  const bus = await broker.open()
  const log = recordingLog()
  const write = async (tx: Queryable, events: readonly Received<Word>[]) => {
    await tx.query(
      `insert into ${schema}.word (id, key, text)
       select * from unnest($1::text[], $2::text[], $3::text[]) on conflict do nothing`,
      [
        events.map(({ meta }) => meta.id),
        events.map(({ body }) => body.key),
        events.map(({ body }) => body.text),
      ],
    )
  }
  const start = (options: Partial<ConsumerOptions<Word>> = {}) => {
    const consumer = startConsumer<Word>({
      bus,
      database,
      schema,
      group: 'reader',
      topics: ['words'],
      runtime: systemRuntime,
      log,
      decode: decodeWord,
      handle: write,
      backoff: { baseMs: 1, maxMs: 5 },
      ...options,
    })
    t.after(() => consumer.close())
    return consumer
  }
  t.after(() => broker.close())
  const send = (texts: readonly string[], key = 'k') =>
    bus.send(texts.map((text) => message('words', key, text)))
  const words = async () =>
    (await database.query<Word>(`select key, text from ${schema}.word order by n`)).map(
      ({ text }) => text,
    )
  const committed = () => broker.committed('reader')
  return { broker, bus, schema, log, start, send, words, write, committed }
}

const decodeWord = (got: IdentifiedMessage): Received<Word> | UnknownEvent | string => {
  const text = textOf(got) ?? ''
  if (text.startsWith('unknown')) return { unknownEvent: text }
  if (text.startsWith('unreadable')) return `cannot read ${text}`
  const id = `${got.topic}/${got.partition}/${got.offset}/${got.incarnation ?? ''}`
  return { body: { text, key: got.key ?? '' }, meta: { id } }
}

function recordingLog(): Log & { readonly lines: string[] } {
  const lines: string[] = []
  const write = (_members: object, sentence: string) => void lines.push(sentence)
  return { lines, debug: write, info: write, warn: write, error: write }
}

const texts = (count: number) => Array.from({ length: count }, (_, n) => String(n))

/** A database whose transactions fail from `breakWith` until `repair`. */
function breakable(whole: Database) {
  let error: DatabaseError | undefined
  const counts = { transactions: 0, rejected: 0 }
  const database: Database = {
    ...whole,
    async transaction(work) {
      counts.transactions += 1
      if (error === undefined) return whole.transaction(work)
      counts.rejected += 1
      throw error
    },
  }
  return {
    database,
    counts,
    breakWith(kind: 'unavailable' | 'conflict') {
      error = new DatabaseError(`broken: ${kind}`, kind)
    },
    repair() {
      error = undefined
    },
  }
}

async function deadLetters(schema: string) {
  return database.query<{ offset: bigint; code: string; reason: string; value: Uint8Array }>(
    `select "offset", code, reason, value, key, headers from ${schema}.dead_letter order by "offset"`,
  )
}

test('settles all ready partitions in one transaction and in order', async (t) => {
  const { bus, start, words, send, committed } = await setUp(t, 4)
  for (const key of ['a', 'b', 'c', 'd', 'e']) {
    await send(
      texts(20).map((text) => `${key}${text}`),
      key,
    )
  }
  const calm = breakable(database)
  start({ database: calm.database })
  await until(async () => (await committed()) === 100)
  assert.equal(calm.counts.transactions, 1)
  const got = await words()
  for (const key of ['a', 'b', 'c', 'd', 'e']) {
    const mine = got.filter((text) => text.startsWith(key))
    assert.deepEqual(
      mine,
      texts(20).map((text) => `${key}${text}`),
    )
  }
  await bus.ping()
})

test('commits the transaction, then runs the after-commit hook, then commits the offsets', async (t) => {
  const { bus, start, send, words, write } = await setUp(t)
  const order: string[] = []
  const watched = watchCommits(bus, () => order.push('offsets'))
  const inOrder: Database = {
    ...database,
    async transaction(work) {
      const result = await database.transaction(work)
      order.push('transaction')
      return result
    },
  }
  await send(['a'])
  start({
    bus: watched,
    database: inOrder,
    async handle(tx, events) {
      await write(tx, events)
      return { afterCommit: () => order.push('after') }
    },
  })
  await until(() => order.length === 3)
  assert.deepEqual(order, ['transaction', 'after', 'offsets'])
  assert.deepEqual(await words(), ['a'])
})

test('dead-letters undecodable and refused messages in the same transaction', async (t) => {
  const { start, send, words, write, committed, schema } = await setUp(t)
  await send(['a', 'unreadable', 'refused', 'b'])
  const calm = breakable(database)
  start({
    database: calm.database,
    async handle(tx, events) {
      const bad = events.filter(({ body }) => body.text === 'refused')
      await write(
        tx,
        events.filter((event) => !bad.includes(event)),
      )
      return { poison: new Map(bad.map((event) => [event, 'a rule is broken'])) }
    },
  })
  await until(async () => (await committed()) === 4)
  assert.equal(calm.counts.transactions, 1)
  assert.deepEqual(await words(), ['a', 'b'])
  const letters = await deadLetters(schema)
  assert.deepEqual(
    letters.map(({ offset, code, reason }) => [offset, code, reason]),
    [
      [1n, 'UNREADABLE', 'cannot read unreadable'],
      [2n, 'REFUSED', 'a rule is broken'],
    ],
  )
  assert.deepEqual(letters.map(textOf), ['unreadable', 'refused'])
})

test('splits until the message that breaks its statement is alone, and keeps the order', async (t) => {
  const { start, send, words, write, committed, schema, log } = await setUp(t)
  const all = texts(100)
  await send(all)
  start({
    async handle(tx, events) {
      await write(tx, events)
      await tx.query('select 1 / (case when $1 then 0 else 1 end)', [
        events.some(({ body }) => body.text === '50'),
      ])
    },
  })
  await until(async () => (await committed()) === 100)
  assert.deepEqual(
    await words(),
    all.filter((text) => text !== '50'),
  )
  const [letter, ...others] = await deadLetters(schema)
  assert.equal(others.length, 0)
  assert.equal(letter!.offset, 50n)
  assert.equal(letter!.code, 'STATEMENT_INVALID')
  assert.match(letter!.reason, /division by zero/)
  assert.equal(textOf(letter!), '50')
  assert.equal(log.lines.filter((line) => line.includes('dead-lettered')).length, 1)
})

test('continues other partitions at once when a message of one partition fails', async (t) => {
  const { start, send, words, write, committed, schema } = await setUp(t, 4)
  const keys = Array.from({ length: 4 }, (_, partition) => keyOn(partition, 4))
  for (const [n, key] of keys.entries())
    await send(
      texts(10).map((text) => `${n}-${text}`),
      key,
    )
  const calls: string[][] = []
  start({
    async handle(tx, events) {
      calls.push(events.map(({ body }) => body.text))
      await write(tx, events)
      if (events.some(({ body }) => body.text === '2-5')) throw new Error('does not like 2-5')
    },
  })
  await until(async () => (await committed()) === 40)
  assert.equal((await words()).length, 39)
  assert.deepEqual(calls[0]!.length, 40)
  for (const call of calls.slice(1)) assert.equal(new Set(call.map((text) => text[0])).size, 1)
  const [letter] = await deadLetters(schema)
  assert.equal(letter!.code, 'HANDLER_FAILED')
  assert.equal(textOf(letter!), '2-5')
})

test('makes three attempts at a message that fails alone before it becomes a dead letter', async (t) => {
  const { start, send, words, write, committed, schema } = await setUp(t)
  await send(['passing', 'lasting', 'fine'])
  const alone = { passing: 0, lasting: 0 }
  start({
    async handle(tx, events) {
      const [{ body }, more] = [events[0]!, events[1]]
      if (more === undefined && body.text === 'passing' && ++alone.passing > 2) {
        return write(tx, events)
      }
      if (more === undefined && body.text === 'lasting') alone.lasting += 1
      if (events.some(({ body }) => body.text !== 'fine')) throw new TypeError('oops')
      return write(tx, events)
    },
  })
  await until(async () => (await committed()) === 3)
  assert.deepEqual(alone, { passing: 3, lasting: 3 })
  assert.deepEqual(await words(), ['passing', 'fine'])
  assert.deepEqual((await deadLetters(schema)).map(textOf), ['lasting'])
})

test('waits while the database is down, logs the outage once and loses nothing', async (t) => {
  const { start, send, words, committed, schema, log } = await setUp(t)
  const shaky = breakable(database)
  shaky.breakWith('unavailable')
  await send(texts(30))
  const consumer = start({ database: shaky.database })
  await until(() => shaky.counts.rejected > 5)
  assert.equal(consumer.state().isDatabaseDown, true)
  assert.equal(await committed(), 0)
  shaky.repair()
  await until(async () => (await committed()) === 30)
  assert.deepEqual(await words(), texts(30))
  assert.equal(consumer.state().isDatabaseDown, false)
  assert.equal(await countDeadLetters(database, schema), 0)
  assert.deepEqual(log.lines, ['the database failed; retrying', 'the database works again'])
})

test('a database failure in the middle of a split causes a retry, never a dead letter', async (t) => {
  const { start, send, words, write, committed, schema } = await setUp(t)
  await send(texts(16))
  const shaky = breakable(database)
  let splits = 0
  start({
    database: shaky.database,
    async handle(tx, events) {
      await write(tx, events)
      if (!events.some(({ body }) => body.text === '9')) return
      if (events.length === 4 && splits++ === 0) {
        shaky.breakWith('unavailable')
        void until(() => shaky.counts.rejected > 3).then(() => shaky.repair())
      }
      throw new Error('does not like 9')
    },
  })
  await until(async () => (await committed()) === 16)
  assert.ok(shaky.counts.rejected > 3)
  assert.deepEqual(
    await words(),
    texts(16).filter((text) => text !== '9'),
  )
  assert.deepEqual((await deadLetters(schema)).map(textOf), ['9'])
})

test('a batch that is retried holds its own partition and no other', async (t) => {
  const { start, send, words, write, committed } = await setUp(t, 2)
  const [stuck, free] = [keyOn(0, 2), keyOn(1, 2)]
  let isLocked = true
  const consumer = start({
    async handle(tx, events) {
      if (isLocked && events.some(({ body }) => body.key === stuck)) {
        throw new DatabaseError('the row is locked', 'unavailable')
      }
      await write(tx, events)
    },
  })
  await send(['stuck 1', 'stuck 2'], stuck)
  await until(() => consumer.state().isDatabaseDown)
  await send(['free 1'], free)
  await until(async () => (await words()).length === 1)
  await send(['free 2'], free)
  await until(async () => (await committed()) === 2)
  assert.deepEqual(await words(), ['free 1', 'free 2'])
  isLocked = false
  await until(async () => (await committed()) === 4)
  assert.deepEqual(await words(), ['free 1', 'free 2', 'stuck 1', 'stuck 2'])
})

test('a handler that hangs does not hold up other partitions', async (t) => {
  const { start, send, committed } = await setUp(t, 2)
  const [slow, free] = [keyOn(0, 2), keyOn(1, 2)]
  const hangs = Promise.withResolvers<void>()
  const resume = Promise.withResolvers<void>()
  const handled: string[] = []
  const parallel: Database = { ...database, transaction: (work) => work(database) }
  start({
    database: parallel,
    async handle(_tx, events) {
      if (events.some(({ body }) => body.key === slow)) {
        hangs.resolve()
        await resume.promise
      }
      handled.push(...events.map(({ body }) => body.text))
    },
  })
  await send(['slow'], slow)
  await hangs.promise
  await send(['free'], free)
  await until(async () => (await committed()) === 1)
  assert.deepEqual(handled, ['free'])
  resume.resolve()
  await until(async () => (await committed()) === 2)
})

test('retries at once after conflicts and does not give up if they last', async (t) => {
  const { start, send, words, committed, schema } = await setUp(t)
  const contested = breakable(database)
  contested.breakWith('conflict')
  await send(texts(4))
  start({ database: contested.database })
  await until(() => contested.counts.rejected > 30)
  contested.repair()
  await until(async () => (await committed()) === 4)
  assert.deepEqual(await words(), texts(4))
  assert.equal(await countDeadLetters(database, schema), 0)
})

test('survives outages of the broker and logs each of them once', async (t) => {
  const { broker, bus, start, send, words, write, committed, log } = await setUp(t)
  const failing = watchCommits(bus, () => broker.pause())
  let deliveries = 0
  const consumer = start({
    bus: failing,
    async handle(tx, events) {
      deliveries += events.length
      await write(tx, events)
    },
  })
  await send(['before'])
  await until(() => consumer.state().isBrokerDown)
  assert.deepEqual(await words(), ['before'])
  assert.equal(await committed(), 0)
  failing.stopWatching()
  broker.resume()
  await send(['after'])
  await until(async () => (await committed()) === 2)
  assert.deepEqual(await words(), ['before', 'after'])
  await until(() => !consumer.state().isBrokerDown)
  assert.equal(deliveries, 2)
  assert.deepEqual(log.lines, ['the broker failed; retrying', 'the broker works again'])
})

test('starts while the broker is down and joins once it is up', async (t) => {
  const { broker, start, send, words } = await setUp(t)
  await send(['early'])
  broker.pause()
  const consumer = start()
  await until(() => consumer.state().isBrokerDown)
  broker.resume()
  await until(async () => (await words()).length === 1)
})

test('takes the next messages while the offsets of the last ones are being committed', async (t) => {
  const { bus, start, send, words, committed } = await setUp(t, 2)
  const end = Promise.withResolvers<void>()
  const slow = watchCommits(bus, () => end.promise)
  start({ bus: slow })
  await send(['a'], keyOn(0, 2))
  await until(async () => (await words()).length === 1)
  await send(['b'], keyOn(1, 2))
  await until(async () => (await words()).length === 2)
  assert.equal(await committed(), 0)
  end.resolve()
  await until(async () => (await committed()) === 2)
})

test('gathers more messages after a small batch if no request waits for them', async (t) => {
  const { start, send, write, committed } = await setUp(t)
  const clock = createClock({ frozen: true, database })
  const batches: number[] = []
  start({
    runtime: clock.runtime,
    canWait: true,
    async handle(tx, events) {
      batches.push(events.length)
      await write(tx, events)
    },
  })
  await send(['first'])
  await until(() => batches.length === 1)
  await send(['a'])
  await send(['b'])
  await send(['c'])
  await until(() => clock.isSleepingFor(50))
  clock.advance(50)
  await until(async () => (await committed()) === 4)
  assert.deepEqual(batches, [1, 3])
})

test('takes no more while too many offset commits are in flight', async (t) => {
  const partitions = 66
  const most = 64
  const { broker, bus, start, send, committed } = await setUp(t, partitions)
  const end = Promise.withResolvers<void>()
  let commits = 0
  const slow = watchCommits(bus, () => {
    commits += 1
    return end.promise
  })
  start({ bus: slow })
  start({ group: 'another', handle: async () => {} })
  for (let sent = 1; sent <= partitions; sent += 1) {
    await send(['a'], keyOn(sent - 1, partitions))
    await until(async () => (await broker.committed('another')) === sent)
    await until(() => commits === Math.min(sent, most))
  }
  end.resolve()
  await until(async () => (await committed()) === partitions)
})

test('redelivers messages after a crash between the transaction and the offset commit', async (t) => {
  const { broker, bus, start, send, words, committed } = await setUp(t)
  await send(['a', 'b'])
  const crashed = Promise.withResolvers<void>()
  const dying = watchCommits(bus, () => {
    crashed.resolve()
    return new Promise<void>(() => {})
  })
  const first = start({ bus: dying, closeLimitMs: 1 })
  await crashed.promise
  await Promise.all([first.close(), bus.close()])
  assert.equal(await committed(), 0)
  assert.deepEqual(await words(), ['a', 'b'])
  const later = await broker.open()
  let deliveries = 0
  start({
    bus: later,
    async handle(_tx, events) {
      deliveries += events.length
    },
  })
  await until(async () => (await committed()) === 2)
  assert.equal(deliveries, 2)
})

test('closing finishes and commits the batches in flight', async (t) => {
  const { start, send, words, write, committed } = await setUp(t)
  const inside = Promise.withResolvers<void>()
  const proceed = Promise.withResolvers<void>()
  const consumer = start({
    async handle(tx, events) {
      inside.resolve()
      await proceed.promise
      await write(tx, events)
    },
  })
  await send(['a'])
  await inside.promise
  const closed = consumer.close()
  proceed.resolve()
  await closed
  assert.equal(await committed(), 1)
  assert.deepEqual(await words(), ['a'])
  assert.equal(consumer.state().running, false)
})

test('closing interrupts a backoff and leaves the batch to other members', async (t) => {
  const { start, send, words, committed } = await setUp(t)
  const shaky = breakable(database)
  shaky.breakWith('unavailable')
  await send(['a'])
  const backoff = { baseMs: 3_600_000, maxMs: 3_600_000 }
  const consumer = start({ database: shaky.database, backoff })
  await until(() => shaky.counts.rejected === 1)
  await consumer.close()
  assert.equal(await committed(), 0)
  start()
  await until(async () => (await committed()) === 1)
  assert.deepEqual(await words(), ['a'])
})

test('counts batches, messages, retries and dead letters', async (t) => {
  const { start, send, committed } = await setUp(t)
  const counted = new Map<string, number>()
  const telemetry: NonNullable<ConsumerOptions<Word>['telemetry']> = {
    count(name, ...[labels, by]) {
      const key = `${name} ${Object.values(labels ?? {})}`
      counted.set(key, (counted.get(key) ?? 0) + (by ?? 1))
    },
    observe(name, value, ...[labels]) {
      counted.set(`${name} ${Object.values(labels ?? {})}`, value)
    },
    gauge: () => undefined,
  }
  await send(['a', 'unreadable', 'b'])
  let failures = 0
  start({
    telemetry,
    async handle() {
      if (failures++ === 0) throw new DatabaseError('away', 'unavailable')
    },
  })
  await until(async () => (await committed()) === 3)
  assert.deepEqual(Object.fromEntries(counted), {
    'trifold_consumer_retries_total words': 1,
    'trifold_consumer_batch_size words': 3,
    'trifold_consumer_messages_total words': 3,
    'trifold_consumer_unknown_events_total words': 0,
    'trifold_consumer_unknown_fields_total words': 0,
    'trifold_dead_letters_total broker': 1,
  })
})

test('stores a dead letter with any key, reason and value, and stores it once', async (t) => {
  const { start, send, committed, schema } = await setUp(t)
  await send(['a'], 'the key')
  const decode = () => `a reason with \0 in it and ${'much'.repeat(1000)} more`
  start({ decode })
  await until(async () => (await committed()) === 1)
  const [letter] = await deadLetters(schema)
  assert.equal(letter!.reason.length, 2000)
  assert.match(letter!.reason, /^a reason with \ufffd in it/)
})

/** A bus whose subscriptions call `onCommit` before each offset commit. */
function watchCommits(bus: Bus, onCommit: () => unknown): Bus & { stopWatching(): void } {
  let watching = true
  return {
    ...bus,
    stopWatching() {
      watching = false
    },
    async subscribe(group, topics) {
      const subscription = await bus.subscribe(group, topics)
      return {
        ...subscription,
        async commit(batches) {
          if (watching) await onCommit()
          return subscription.commit(batches)
        },
      }
    },
  }
}

function keyOn(partition: number, partitions: number): string {
  const keys = Array.from({ length: 16 * partitions }, (_, n) => `k${n}`)
  return keys.find((key) => partitionOf(key, partitions) === partition)!
}

test('an event that this version does not know is skipped, and each name is logged once', async (t) => {
  const { schema, log, start, send, words, committed } = await setUp(t)
  start()
  await send(['1', 'unknown a', 'unknown b', 'unknown a', '2'])
  await until(async () => (await committed()) === 5)
  assert.deepEqual(await words(), ['1', '2'])
  assert.equal(await countDeadLetters(database, schema), 0)
  const skipped = 'skipped an event that this version does not know'
  assert.equal(log.lines.filter((line) => line === skipped).length, 2)
})

test('messages of a recreated topic are new messages, although their positions were used before', async (t) => {
  const { broker, schema, start, words } = await setUp(t)
  const stored = () =>
    database.query<{ value: Uint8Array }>(`select value from ${schema}.dead_letter order by seq`)
  /** Sends a word and an unreadable message to the current topic, and reads both. */
  async function sendAndRead(word: string, poison: string, count: number): Promise<void> {
    const bus = await broker.open()
    await bus.send([message('words', 'k', word), message('words', 'k', poison)])
    const consumer = start({ bus, database })
    await until(async () => (await words()).length === count && (await stored()).length === count)
    await consumer.close()
  }
  await sendAndRead('first', 'unreadable first', 1)
  await broker.remakeTopics()
  await sendAndRead('first', 'unreadable first', 2)
  await broker.remakeTopics()
  await sendAndRead('third', 'unreadable third', 3)
  assert.deepEqual(await words(), ['first', 'first', 'third'])
  const texts = (await stored()).map(({ value }) => new TextDecoder().decode(value))
  assert.deepEqual(texts, ['unreadable first', 'unreadable first', 'unreadable third'])
})

test('a message that arrives while the database is down is identified once it is up', async (t) => {
  const { bus, schema, start, words } = await setUp(t)
  let isDown = true
  const unavailable: Database = {
    ...database,
    async query(text, params) {
      if (isDown) throw new DatabaseError('down', 'unavailable')
      return database.query(text, params)
    },
  }
  const consumer = start({ database: unavailable })
  await bus.send([message('words', 'k', 'late')])
  await until(() => consumer.state().isDatabaseDown)
  isDown = false
  await until(async () => (await words()).length === 1)
  const [first] = await database.query(`select topic from ${schema}.topic_incarnation`)
  assert.equal(first?.topic, 'words')
})
