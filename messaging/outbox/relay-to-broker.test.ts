import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { until } from '../../platform/async/until.ts'
import { type Database, DatabaseError } from '../../platform/database/database.ts'
import { openTestBroker } from '../../tests/support/backends.ts'
import { readTopics } from '../../tests/support/harness.ts'
import { message, openRelays } from '../../tests/support/relays.ts'
import type { Bus } from '../bus.ts'

const { database, setUp, settle } = await openRelays()

type Scene = Awaited<ReturnType<typeof setUp>>

/** The topic `words`, and a bus on it whose sends are counted and can be followed by a fault. */
async function openBus(t: { after(work: () => Promise<void>): void }) {
  const topics = [{ name: 'words', partitions: 2, compacted: false }]
  const broker = await openTestBroker({ database, topics })
  const bus = await broker.open()
  const read = await readTopics(bus, ['words'])
  const batches: number[] = []
  const sentHooks: (() => void)[] = []
  const counting: Bus = {
    ...bus,
    async send(messages) {
      await bus.send(messages)
      batches.push(messages.length)
      for (const sent of sentHooks) sent()
    },
  }
  t.after(async () => {
    await read.close()
    await broker.close()
  })
  return { broker, counting, read, batches, onSent: (hook: () => void) => sentHooks.push(hook) }
}

/** Advances the frozen clock until the relay has deleted all rows. */
const emptied = ({ clock, waiting }: Scene) =>
  until(async () => {
    clock.advance(50)
    return (await waiting()).length === 0
  })

/**
 * Resolves once the relay holds all lanes. Until then a commit notifies other instances, and this relay receives
 * its own notification and polls for it.
 */
async function startAlone({ start }: Scene, options: Parameters<Scene['start']>[0]): Promise<void> {
  const relay = start(options)
  await until(() => !relay.hasPeers())
}

/** Counts the polls of the outbox. */
function countPolls(whole: Database) {
  let polls = 0
  const watched: Database = {
    ...whole,
    query: (text, params) => {
      if (text.includes('order by id limit')) polls += 1
      return whole.query(text, params)
    },
  }
  return { polls: () => polls, database: watched }
}

const idsOf = (messages: readonly { headers: Readonly<Record<string, string>> }[]) =>
  messages.map(({ headers }) => headers.ce_id)

describe('rows for the broker', () => {
  test('go in large batches, in order within each key', async (t) => {
    const scene = await setUp(t)
    const { start, put } = scene
    const { counting, read, batches } = await openBus(t)
    const all = Array.from({ length: 2_500 }, (_, n) => message(`m${n}`, `k${n % 7}`, 'broker'))
    await put(all)
    start({ bus: counting })
    await emptied(scene)
    assert.deepEqual(batches, [1_000, 1_000, 500])
    await until(() => read.messages.length === all.length)
    for (const key of ['k0', 'k6']) {
      const sent = all.filter((one) => one.key === key).map(({ eventId }) => eventId)
      assert.deepEqual(idsOf(read.of(key)), sent)
    }
    assert.equal(read.messages[0]?.text, all.find(({ key }) => key === read.messages[0]?.key)?.body)
  })

  test('are read while the previous batch is in flight, and sent once it is acknowledged', async (t) => {
    const scene = await setUp(t)
    const { counting, read, batches } = await openBus(t)
    const { polls, database: watched } = countPolls(database)
    const landing = Promise.withResolvers<void>()
    t.after(async () => landing.resolve())
    let started = 0
    const slow: Bus = {
      ...counting,
      async send(messages) {
        started += 1
        await landing.promise
        await counting.send(messages)
      },
    }
    await scene.put(Array.from({ length: 1_500 }, (_, n) => message(`m${n}`, 'k', 'broker')))
    scene.start({ bus: slow, database: watched })
    await until(() => started === 1 && polls() === 2)
    await settle()
    assert.equal(started, 1)
    landing.resolve()
    await emptied(scene)
    assert.deepEqual(batches, [1_000, 500])
    await until(() => read.messages.length === 1_500)
    assert.deepEqual(
      idsOf(read.messages),
      Array.from({ length: 1_500 }, (_, n) => `m${n}`),
    )
  })

  test('do not overtake a failed batch, even if they were read while it was in flight', async (t) => {
    const scene = await setUp(t)
    const { counting, read } = await openBus(t)
    const { polls, database: watched } = countPolls(database)
    const failing = Promise.withResolvers<void>()
    t.after(async () => failing.resolve())
    let sends = 0
    const shaky: Bus = {
      ...counting,
      async send(messages) {
        sends += 1
        if (sends > 1) return await counting.send(messages)
        await failing.promise
        throw new Error('the broker is down')
      },
    }
    await scene.put(Array.from({ length: 1_500 }, (_, n) => message(`m${n}`, 'k', 'broker')))
    scene.start({ bus: shaky, database: watched })
    await until(() => sends === 1 && polls() === 2)
    failing.resolve()
    await until(() => {
      scene.clock.advance(100)
      return read.messages.length === 1_500
    })
    await emptied(scene)
    assert.deepEqual(
      idsOf(read.messages),
      Array.from({ length: 1_500 }, (_, n) => `m${n}`),
    )
  })

  test('that can wait gather for a moment, or go along with an urgent row', async (t) => {
    const scene = await setUp(t)
    const { put, clock } = scene
    const { counting, batches } = await openBus(t)
    await startAlone(scene, { bus: counting })
    await put([message('m0', 'k', 'broker')])
    await emptied(scene)
    const patient = { ...message('m1', 'k', 'broker'), canWait: true } as const
    await put([patient])
    await put([{ ...patient, eventId: 'm2' }])
    await settle()
    assert.deepEqual(batches, [1])
    clock.advance(100)
    await emptied(scene)
    assert.deepEqual(batches, [1, 2])
    await put([{ ...patient, eventId: 'm3' }])
    await put([message('m4', 'k', 'broker')])
    await emptied(scene)
    assert.deepEqual(batches, [1, 2, 2])
  })

  test('are not taken over by another instance while they are in flight', async (t) => {
    const scene = await setUp(t)
    const { start, put, clock } = scene
    const { counting, read } = await openBus(t)
    const keys = Array.from({ length: 20 }, (_, n) => `k${n}`)
    const arrived = Promise.withResolvers<void>()
    t.after(async () => arrived.resolve())
    const started: (string | undefined)[] = []
    const slow: Bus = {
      ...counting,
      async send(messages) {
        started.push(...idsOf(messages))
        await arrived.promise
        await counting.send(messages)
      },
    }
    start({ bus: slow, soleProcess: false })
    await put(keys.map((key) => message(`${key}/1`, key, 'broker')))
    await until(() => started.length === keys.length)
    start({ bus: counting, soleProcess: false })
    await put(keys.map((key) => message(`${key}/2`, key, 'broker')))
    await put(keys.map((key) => message(`new ${key}`, `new ${key}`, 'broker')))
    // Longer than a lease lasts, so the other instance has its share of the lanes that are free.
    for (let n = 0; n < 10; n += 1) {
      clock.advance(2_000)
      await settle()
    }
    assert.deepEqual(read.messages, [])
    arrived.resolve()
    await until(async () => {
      clock.advance(2_000)
      return read.messages.length >= 3 * keys.length
    })
    await emptied(scene)
    for (const key of keys) {
      assert.deepEqual(idsOf(read.of(key)), [`${key}/1`, `${key}/2`])
      assert.deepEqual(idsOf(read.of(`new ${key}`)), [`new ${key}`])
    }
  })

  test('are sent by the instance that holds their lane', async (t) => {
    const scene = await setUp(t)
    const { start, put, clock } = scene
    const { counting, read } = await openBus(t)
    for (let n = 0; n < 2; n += 1) start({ bus: counting, soleProcess: false })
    for (let n = 0; n < 10; n += 1) {
      clock.advance(2_000)
      await settle()
    }
    const keys = Array.from({ length: 40 }, (_, n) => `k${n}`)
    await put(keys.map((key) => message(key, key, 'broker')))
    await emptied(scene)
    await until(() => read.messages.length >= keys.length)
    assert.deepEqual(idsOf(read.messages).sort(), keys.sort())
  })

  test('are deleted by the poll for the next ones, or by a poll of their own a moment later', async (t) => {
    const scene = await setUp(t)
    const { counting, batches } = await openBus(t)
    const { polls, database: watched } = countPolls(database)
    await startAlone(scene, { bus: counting, database: watched })
    await scene.put([message('a1', 'a', 'broker')])
    await emptied(scene)
    const before = polls()
    await scene.put([message('b1', 'b', 'broker'), message('b2', 'b', 'broker')])
    await until(() => batches.length === 2)
    await settle()
    await scene.put([message('c1', 'c', 'broker')])
    await until(() => batches.length === 3)
    await settle()
    assert.equal(polls(), before + 2)
    const left = await scene.waiting()
    assert.deepEqual(
      left.map(({ event_id }) => event_id),
      ['c1'],
    )
    await emptied(scene)
    assert.equal(polls(), before + 3)
    assert.deepEqual(batches, [1, 2, 1])
  })

  test('follow an older row with the same key that no commit announced', async (t) => {
    const scene = await setUp(t)
    const { counting, read } = await openBus(t)
    scene.start({ bus: counting })
    await scene.put([message('z1', 'z', 'broker')])
    await emptied(scene)
    await scene.commit([message('a1', 'a', 'broker')])
    await scene.put([message('a2', 'a', 'broker')])
    await until(() => read.messages.length === 3)
    assert.deepEqual(idsOf(read.of('a')), ['a1', 'a2'])
  })

  test('are sent once if a poll has found them before their commit is announced', async (t) => {
    const scene = await setUp(t)
    const { counting, read, batches } = await openBus(t)
    const relay = scene.start({ bus: counting })
    const committed = await scene.commit([message('a1', 'a', 'broker')])
    await emptied(scene)
    relay.wake(committed)
    await settle()
    scene.clock.advance(1_000)
    await settle()
    assert.deepEqual(batches, [1])
    assert.deepEqual(idsOf(read.messages), ['a1'])
  })

  test('wait while the broker is down, and are sent when it is back', async (t) => {
    const { start, put, waiting, clock } = await setUp(t)
    const { broker, counting, read, batches } = await openBus(t)
    let failures = 0
    const failing: Bus = {
      ...counting,
      send: (messages) =>
        counting.send(messages).catch((error) => {
          failures += 1
          throw error
        }),
    }
    broker.pause()
    start({ bus: failing })
    await put([message('a1', 'a', 'broker'), message('a2', 'a', 'broker')])
    // Repeatedly, because the relay may not have started to wait yet, or may have to renew its lease.
    await until(async () => {
      clock.advance(1_000)
      return failures >= 3
    })
    assert.equal((await waiting()).length, 2)
    broker.resume()
    await until(async () => {
      clock.advance(1_000)
      return (await waiting()).length === 0
    })
    assert.deepEqual(batches, [2])
    await until(() => read.messages.length === 2)
    assert.deepEqual(idsOf(read.of('a')), ['a1', 'a2'])
  })

  test('are sent again, as the same events, if the relay died before deleting them', async (t) => {
    const scene = await setUp(t)
    const { start, put, waiting } = scene
    const { counting, read, onSent } = await openBus(t)
    let dead = false
    onSent(() => {
      dead = true
    })
    const mortal: Database = {
      ...database,
      query: (text, params) =>
        dead
          ? Promise.reject(new DatabaseError('the process is dead', 'unavailable'))
          : database.query(text, params),
    }
    const first = start({ bus: counting, database: mortal })
    await put([message('a1', 'a', 'broker'), message('a2', 'a', 'broker')])
    await until(() => dead)
    await first.close()
    assert.equal((await waiting()).length, 2)
    start({ bus: counting })
    await emptied(scene)
    await until(() => read.messages.length === 4)
    assert.deepEqual(idsOf(read.of('a')), ['a1', 'a2', 'a1', 'a2'])
  })

  test('stay in the outbox if the broker is unresponsive, and do not delay the end of the relay', async (t) => {
    const { start, put, waiting, clock } = await setUp(t)
    const { counting } = await openBus(t)
    let sends = 0
    const silent: Bus = {
      ...counting,
      send: () => {
        sends += 1
        return new Promise(() => undefined)
      },
    }
    const relay = start({ bus: silent })
    await put([message('a1', 'a', 'broker')])
    await until(() => sends === 1)
    let isClosed = false
    const closing = relay.close().then(() => {
      isClosed = true
    })
    await until(() => {
      clock.advance(5_000)
      return isClosed
    })
    await closing
    assert.equal((await waiting()).length, 1)
  })
})
