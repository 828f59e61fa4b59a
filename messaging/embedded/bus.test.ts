import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { systemRuntime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { openPglite } from '../../platform/pglite/pglite.ts'
import { busConformance, message, numbered, receive, textOf } from '../bus.conformance.ts'
import type { TopicSpec } from '../bus.ts'
import { createEmbeddedBus, type EmbeddedBusOptions } from './bus.ts'

/** How far the database's clock is ahead of the machine's. */
let aheadMs = 0
const database = await openPglite({ now: () => Date.now() + aheadMs })
after(() => database.close())

let schemas = 0
const open = (topics: readonly TopicSpec[], options: Partial<EmbeddedBusOptions> = {}) =>
  createEmbeddedBus({ database, runtime: systemRuntime, topics, ...options })
/** Opens a bus with its own log, for tests that examine a whole log. */
const openFresh = (topics: readonly TopicSpec[], options: Partial<EmbeddedBusOptions> = {}) => {
  schemas += 1
  return open(topics, { schema: `bus_${schemas}`, ...options })
}
const plain = (name: string, partitions = 1) => ({ name, partitions, compacted: false })

busConformance('the embedded bus', async (topics) => {
  const buses = [await open(topics)]
  return {
    bus: buses[0]!,
    async reopen() {
      await buses[0]!.close()
      buses.push(await open([]))
      return buses[1]!
    },
    async close() {
      for (const bus of buses) await bus.close()
    },
  }
})

test('finds its messages and offsets after a restart', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'trifold-bus-'))
  const topics = [plain('billing', 3)]
  const start = async () => {
    const own = await openPglite({ folder })
    return { own, bus: await open(topics, { database: own }) }
  }
  const stop = async ({ own, bus }: { own: Database; bus: { close(): Promise<void> } }) => {
    await bus.close()
    await own.close()
  }
  const first = await start()
  await first.bus.send(numbered('billing', 10, 10))
  await receive(await first.bus.subscribe('reader', ['billing']), 10)
  await first.bus.send([message('billing', 'k', 'for the next process')])
  await stop(first)
  const second = await start()
  const received = await receive(await second.bus.subscribe('reader', ['billing']), 1)
  assert.deepEqual(received.map(textOf), ['for the next process'])
  await stop(second)
  await rm(folder, { recursive: true })
})

/** The database of these tests, with a counter of its statements. */
function counting() {
  const counts = { statements: 0 }
  const counted: Database = {
    ...database,
    query(text, params) {
      counts.statements += 1
      return database.query(text, params)
    },
  }
  return { counts, database: counted }
}

test('writes concurrent sends in one statement', async () => {
  const { counts, ...counted } = counting()
  const bus = await openFresh([plain('billing', 4)], counted)
  counts.statements = 0
  await Promise.all(numbered('billing', 100, 10).map((one) => bus.send([one])))
  assert.equal(counts.statements, 1)
  await bus.close()
})

test('limits a take over all partitions together', async () => {
  const bus = await openFresh([plain('billing', 4)], { maxBatchMessages: 40 })
  await bus.send(numbered('billing', 400, 100))
  const batches = await (await bus.subscribe('reader', ['billing'])).take()
  assert.deepEqual(
    batches.map(({ messages }) => messages.length),
    [10, 10, 10, 10],
  )
  await bus.close()
})

test('rejects messages that cannot be stored or would be too large for Kafka', async () => {
  const bus = await openFresh([plain('billing')])
  await assert.rejects(bus.send([message('billing', 'a\0b', '')]), /NUL/)
  const value = new Uint8Array(1_000_001)
  await assert.rejects(
    bus.send([{ topic: 'billing', key: 'k', value, headers: {} }]),
    /larger than/,
  )
  await bus.close()
})

test('adds partitions to a topic and never removes any', async () => {
  const schema = 'bus_growing'
  const count = async () =>
    (await database.query(`select from ${schema}.partition where topic = 'billing'`)).length
  for (const [asked, expected] of [
    [2, 2],
    [5, 5],
    [3, 5],
  ] as const) {
    const bus = await open([plain('billing', asked)], { schema })
    assert.equal(await count(), expected)
    await bus.close()
  }
})

test('deletes only messages that are old and that all groups have read', async () => {
  const bus = await openFresh([plain('billing')], { retentionMs: 1000 })
  const quick = await bus.subscribe('quick', ['billing'])
  const slow = await bus.subscribe('slow', ['billing'])
  await bus.send(numbered('billing', 10, 1))
  await receive(quick, 10)
  const half = await slow.take()
  aheadMs += 2000
  await bus.send([message('billing', 'k', 'young')])
  await receive(quick, 1)
  await bus.maintain()
  slow.release(half)
  assert.equal((await receive(slow, 11)).length, 11)
  await bus.maintain()
  const late = await receive(await bus.subscribe('late', ['billing']), 1)
  assert.deepEqual(late.map(textOf), ['young'])
  await bus.close()
})

test('a new group skips deleted messages and then waits without queries', async () => {
  const { counts, ...counted } = counting()
  const bus = await openFresh([plain('billing')], { ...counted, retentionMs: 1000 })
  await bus.send(numbered('billing', 10, 1))
  aheadMs += 2000
  await bus.maintain()
  const subscription = await bus.subscribe('late', ['billing'])
  counts.statements = 0
  const taking = receive(subscription, 1)
  for (let pings = 1; pings <= 20; pings += 1) await bus.ping()
  assert.equal(counts.statements, 20 + 1)
  await bus.send([message('billing', 'k', 'new')])
  const [got] = await taking
  assert.equal(textOf(got!), 'new')
  assert.equal(got!.offset, 10n)
  await bus.close()
})

test('keeps the newest message of each key on a compacted topic, across many rounds', async () => {
  const balance = { name: 'balance', partitions: 2, compacted: true }
  const bus = await openFresh([balance, plain('billing')])
  await bus.send(numbered('balance', 2500, 7))
  await bus.send(numbered('billing', 20, 1))
  await bus.maintain()
  await bus.send(numbered('balance', 70, 7))
  await bus.maintain()
  const newest = await receive(await bus.subscribe('reader', ['balance']), 7)
  assert.deepEqual(newest.map(textOf).sort(), ['63', '64', '65', '66', '67', '68', '69'])
  assert.equal((await receive(await bus.subscribe('reader', ['billing']), 20)).length, 20)
  await bus.close()
})

test('removes a tombstone once it is old, all groups have read it, and its key is compacted', async () => {
  const balance = { name: 'balance', partitions: 1, compacted: true }
  const bus = await openFresh([balance], { retentionMs: 1000 })
  const subscription = await bus.subscribe('reader', ['balance'])
  await bus.send([
    message('balance', 'gone', 'value'),
    { topic: 'balance', key: 'gone', value: null, headers: {} },
    message('balance', 'kept', 'value'),
  ])
  await bus.maintain()
  const received = await receive(subscription, 2)
  assert.deepEqual(
    received.map(({ key }) => key),
    ['gone', 'kept'],
  )
  aheadMs += 2000
  await bus.maintain()
  const later = await receive(await bus.subscribe('later', ['balance']), 1)
  assert.deepEqual(
    later.map(({ key }) => key),
    ['kept'],
  )
  await bus.close()
})

test('fails every call while paused and loses no stored message', async () => {
  const bus = await openFresh([plain('billing')])
  const subscription = await bus.subscribe('reader', ['billing'])
  await bus.send([message('billing', 'k', 'before')])
  const batches = await subscription.take()
  bus.pause()
  await assert.rejects(bus.send([message('billing', 'k', 'while paused')]))
  await assert.rejects(bus.ping())
  await assert.rejects(subscription.take())
  await assert.rejects(subscription.commit(batches))
  bus.resume()
  subscription.release(batches)
  await bus.send([message('billing', 'k', 'after')])
  assert.deepEqual((await receive(subscription, 2)).map(textOf), ['before', 'after'])
  await bus.close()
})

test('delivers messages that were written although their send was rejected', async () => {
  let failNext = false
  const flaky: Database = {
    ...database,
    async query<Row>(text: string, params?: readonly unknown[]) {
      const rows = await database.query<Row>(text, params)
      if (!failNext) return rows
      failNext = false
      throw Object.assign(new Error('the answer was lost'), { kind: 'unavailable' })
    },
  }
  const bus = await openFresh([plain('billing')], { database: flaky })
  const taking = receive(await bus.subscribe('reader', ['billing']), 1)
  failNext = true
  await assert.rejects(bus.send([message('billing', 'k', 'written')]))
  await bus.maintain()
  assert.deepEqual((await taking).map(textOf), ['written'])
  await bus.close()
})
