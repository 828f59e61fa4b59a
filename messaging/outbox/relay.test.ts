import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { OutboxPage } from '../../contracts/http.ts'
import { until } from '../../platform/async/until.ts'
import { createTelemetry } from '../../platform/telemetry/telemetry.ts'
import { message, openRelays, receiver } from '../../tests/support/relays.ts'
import { DEAD_LETTER_HEADER } from '../dead-letters/dead-letters.ts'
import {
  createOutbox,
  type Delivery,
  listOutbox,
  type OutboxMessage,
  type WaitingRow,
} from './outbox.ts'

const { database, setUp, settle } = await openRelays()
const away: Delivery = { kind: 'retry', error: 'no answer' }

describe('calls', () => {
  test('are made in order within a key and concurrently across keys', async (t) => {
    const { start, put, isEmpty } = await setUp(t)
    const { call, called, answers } = receiver()
    const slow = Promise.withResolvers<Delivery>()
    answers.set('a1', slow.promise)
    start({ call })
    await put([message('a1', 'a'), message('a2', 'a'), message('b1', 'b'), message('b2', 'b')])
    await until(() => called.length === 3)
    assert.deepEqual(called, ['a1', 'b1', 'b2'])
    await put([message('a3', 'a'), message('c1', 'c')])
    await until(() => called.includes('c1'))
    assert.deepEqual(
      called.filter((id) => id.startsWith('a')),
      ['a1'],
    )
    slow.resolve({ kind: 'done' })
    await isEmpty()
    assert.deepEqual(
      called.filter((id) => id.startsWith('a')),
      ['a1', 'a2', 'a3'],
    )
  })

  test('wait, with backoff, for a failing call of their key, while other keys proceed', async (t) => {
    const { start, put, waiting, clock, isEmpty } = await setUp(t)
    const { call, called, answers } = receiver()
    answers.set('a1', away)
    start({ call })
    await put([message('a1', 'a'), message('a2', 'a')])
    for (const attempts of [1, 2, 3, 4]) {
      await until(async () => (await waiting())[0]?.attempts === attempts)
      const { due, last_error } = (await waiting())[0]!
      const waitMs = due.getTime() - clock.runtime.now()
      const fullMs = 100 * 2 ** (attempts - 1)
      assert.ok(waitMs >= fullMs / 2 && waitMs <= fullMs, `${waitMs} ms after ${attempts}`)
      assert.equal(last_error, 'no answer')
      assert.equal(called.length, attempts)
      // The row is written before the relay sleeps. Advancing the clock earlier would not wake it.
      await until(() => clock.isSleepingFor(100))
      clock.advance(fullMs)
    }
    answers.delete('a1')
    await put([message('b1', 'b')])
    clock.advance(5_000)
    await isEmpty()
    assert.deepEqual(
      called.filter((id) => id !== 'b1'),
      ['a1', 'a1', 'a1', 'a1', 'a1', 'a2'],
    )
  })

  test('that were postponed are made at once when the destination is up again', async (t) => {
    const { start, put, waiting, isEmpty } = await setUp(t)
    const { call, called, answers } = receiver()
    for (const id of ['a1', 'b1', 'c1']) answers.set(id, away)
    start({ call })
    await put(['a', 'b', 'c'].map((key) => message(`${key}1`, key)))
    await until(async () => (await waiting()).every(({ attempts }) => attempts === 1))
    answers.clear()
    await settle()
    assert.equal(called.length, 3)
    await put([message('d1', 'd')])
    await isEmpty()
    assert.deepEqual(called.slice(0, 4), ['a1', 'b1', 'c1', 'd1'])
    assert.deepEqual(called.slice(4).sort(), ['a1', 'b1', 'c1'])
  })

  test('that keep failing keep their backoff while others succeed', async (t) => {
    const { start, put, waiting } = await setUp(t)
    const { call, called, answers } = receiver()
    answers.set('a1', away)
    start({ call })
    await put([message('a1', 'a')])
    await until(async () => (await waiting())[0]?.attempts === 1)
    for (let n = 0; n < 20; n += 1) {
      await put([message(`b${n}`, 'b')])
      await until(async () => (await waiting()).length === 1)
    }
    const attemptsAtA = called.filter((id) => id === 'a1').length
    assert.ok(attemptsAtA <= 2, String(attemptsAtA))
  })

  test('are retried if their carrier throws', async (t) => {
    const { start, put, waiting, clock, isEmpty } = await setUp(t)
    let throws = true
    start({
      call: async () => {
        if (throws) throw new Error('out of order')
        return { kind: 'done' }
      },
    })
    await put([message('a1', 'a')])
    await until(async () => (await waiting())[0]?.last_error === 'Error: out of order')
    throws = false
    await until(() => clock.isSleepingFor(100))
    clock.advance(5_000)
    await isEmpty()
  })

  test('that can never succeed are dead-lettered as a whole, and later calls of the key proceed', async (t) => {
    const { start, put, schema, isEmpty } = await setUp(t)
    const { call, called, answers } = receiver()
    answers.set('a1', { kind: 'poison', reason: 'they refuse it' })
    const telemetry = createTelemetry('test')
    start({ call, telemetry })
    await put([message('a1', 'a'), message('a2', 'a')])
    await isEmpty()
    assert.deepEqual(called, ['a1', 'a2'])
    const deadLetters = await database.query<{ value: Uint8Array }>(
      `select source, topic, key, value, headers, code, reason from ${schema}.dead_letter`,
    )
    assert.deepEqual(deadLetters, [
      {
        source: 'outbox',
        topic: 'http:/calls',
        key: 'a',
        value: new TextEncoder().encode('{"id":"a1"}'),
        headers: '{"ce_id":"a1"}',
        code: 'UNDELIVERABLE',
        reason: 'they refuse it',
      },
    ])
    const { body } = await telemetry.scrape()
    const delivered = 'trifold_outbox_delivered_total{carrier="http",service="test"} 1'
    assert.ok(body.includes(delivered), 'a rejected row is not delivered')
  })

  test('that were dead letters become dead letters under the same ids if they fail again', async (t) => {
    const { start, put, schema, isEmpty } = await setUp(t)
    const { call, answers } = receiver()
    answers.set('a1', { kind: 'poison', reason: 'they refuse it again' })
    start({ call })
    const id = crypto.randomUUID()
    const row = message('a1', 'a')
    await put([{ ...row, headers: { ...row.headers, [DEAD_LETTER_HEADER]: id } }])
    await isEmpty()
    const deadLetters = await database.query(`select id from ${schema}.dead_letter`)
    assert.deepEqual(deadLetters, [{ id }])
  })

  test('that wait are listed with their attempts, by carrier and key, page by page', async (t) => {
    const { start, put, schema } = await setUp(t)
    start({ call: async () => away })
    await put([message('a1', 'a'), message('b1', 'b'), message('a2', 'a')])
    const list = (filter: Partial<OutboxPage>) =>
      listOutbox(database, schema, { limit: 10, ...filter })
    const failed = await until(async () => {
      const rows = await list({})
      return rows.filter(({ attempts }) => attempts > 0).length === 2 && rows
    })
    const idsOf = (rows: readonly WaitingRow[]) => rows.map(({ eventId }) => eventId)
    assert.deepEqual(idsOf(failed), ['a1', 'b1', 'a2'])
    assert.deepEqual(
      failed.map(({ lastError }) => lastError),
      ['no answer', 'no answer', null],
    )
    assert.deepEqual(idsOf(await list({ key: 'a' })), ['a1', 'a2'])
    assert.deepEqual(idsOf(await list({ key: 'a', carrier: 'letter' })), [])
    assert.deepEqual(idsOf(await list({ carrier: 'http', limit: 1 })), ['a1'])
    const cursor = String(failed[0]!.id)
    assert.deepEqual(idsOf(await list({ cursor })), ['b1', 'a2'])
    assert.deepEqual(idsOf(await list({ cursor, key: 'a' })), ['a2'])
  })

  test('run for at most 128 keys at a time', async (t) => {
    const { start, put, isEmpty } = await setUp(t)
    let now = 0
    let most = 0
    start({
      async call() {
        now += 1
        most = Math.max(most, now)
        await new Promise((resolve) => setImmediate(resolve))
        now -= 1
        return { kind: 'done' }
      },
    })
    await put(Array.from({ length: 1_000 }, (_, n) => message(`m${n}`, `key-${n}`)))
    await isEmpty()
    assert.ok(most > 64 && most <= 128, String(most))
  })

  test('in flight when the relay closes are finished and deleted, and no others start', async (t) => {
    const { start, put, waiting } = await setUp(t)
    const { call, called, answers } = receiver()
    const slow = Promise.withResolvers<Delivery>()
    answers.set('a1', slow.promise)
    const relay = start({ call })
    await put([message('a1', 'a')])
    await until(() => called.length === 1)
    const closing = relay.close()
    await put([message('b1', 'b')])
    slow.resolve({ kind: 'done' })
    await closing
    assert.deepEqual(
      (await waiting()).map(({ event_id }) => event_id),
      ['b1'],
    )
    assert.deepEqual(called, ['a1'])
  })
})

describe('a watch', () => {
  test('ends with the first attempt at each row, successful or not', async (t) => {
    const { start, put } = await setUp(t)
    const { call, answers } = receiver()
    answers.set('a1', away)
    const relay = start({ call })
    const watch = relay.watch(['a1', 'b1'])
    await put([message('a1', 'a'), message('b1', 'b')])
    await watch.attempted(60_000)
  })

  test('ends at its limit without an attempt', async (t) => {
    const { start, put, clock } = await setUp(t)
    const { call, called, answers } = receiver()
    answers.set('a1', new Promise<Delivery>((resolve) => t.after(async () => resolve(away))))
    const relay = start({ call })
    const watch = relay.watch(['a1'])
    await put([message('a1', 'a')])
    await until(() => called.length === 1)
    const attempted = watch.attempted(1_000)
    clock.advance(1_000)
    await attempted
    answers.clear()
  })

  test('ends at once when it is canceled', async (t) => {
    const { start } = await setUp(t)
    const relay = start({ call: receiver().call })
    const watch = relay.watch(['never'])
    watch.cancel()
    await watch.attempted(60_000)
  })
})

describe('two relays of one service', () => {
  test('share the keys, and one takes over when the other closes', async (t) => {
    const { start, put, schema, clock, isEmpty } = await setUp(t)
    const [first, second] = [receiver(), receiver()]
    const holders = () =>
      database.query<{ lanes: number }>(
        `select count(*)::integer as lanes from ${schema}.relay_lane
         where holder is not null group by holder`,
      )
    const shared = (counts: string) =>
      until(
        async () => {
          clock.advance(2_000)
          return (await holders()).map(({ lanes }) => lanes).join() === counts
        },
        { what: `lanes shared as ${counts}` },
      )

    const staying = start({ call: first.call, soleProcess: false })
    await shared('8')
    const leaving = start({ call: second.call, soleProcess: false })
    await shared('4,4')
    const keys = Array.from({ length: 40 }, (_, n) => `key-${n}`)
    const round = (n: number) => keys.map((key) => message(`${key}/${n}`, key))
    await put([...round(1), ...round(2)])
    await isEmpty()
    assert.deepEqual(
      [...first.called, ...second.called].sort(),
      [...names(round(1)), ...names(round(2))].sort(),
    )
    for (const { seen } of [first, second]) {
      assert.ok(seen.length > 0)
      const own = new Set(seen.map(({ key }) => key))
      for (const key of own) {
        const order = seen.filter((row) => row.key === key).map(({ eventId }) => eventId)
        assert.deepEqual(order, [`${key}/1`, `${key}/2`])
      }
    }

    // Committed by the instance that does not hold the lane. The holder is notified long before its next poll.
    const [key] = [...new Set(second.seen.map((row) => row.key))]
    const far = message('far', key as string)
    const watch = staying.watch([far.eventId])
    const committed = await database.transaction(async (tx) => {
      await createOutbox(schema).enqueue(tx, [far])
      return tx
    })
    staying.wake(committed)
    let isAttempted = false
    const attempted = watch.attempted(500).then(() => {
      isAttempted = true
    })
    const sent = clock.runtime.now()
    await until(
      async () => {
        clock.advance(5)
        return isAttempted
      },
      { what: 'the notification about the call by the other relay' },
    )
    await attempted
    assert.ok(second.called.includes('far'))
    assert.ok(clock.runtime.now() < sent + 500)

    await leaving.close()
    await shared('8')
    first.called.length = 0
    await put(round(3))
    await isEmpty()
    assert.deepEqual(first.called.sort(), names(round(3)).sort())
  })
})

const names = (messages: readonly OutboxMessage[]) => messages.map(({ eventId }) => eventId)
