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

/** What was sent stays for a moment, and time stands still. */
const emptied = ({ clock, waiting }: Scene) =>
  until(async () => {
    clock.advance(50)
    return (await waiting()).length === 0
  })

/**
 * Resolves once it holds all lanes: of rows in other lanes it tells other instances, and it hears that
 * itself and looks, whenever it is told.
 */
async function startAlone({ start }: Scene, options: Parameters<Scene['start']>[0]): Promise<void> {
  const relay = start(options)
  await until(() => !relay.hasPeers())
}

/** How often the outbox was looked into. */
function watchLooks(whole: Database) {
  let looks = 0
  const watched: Database = {
    ...whole,
    query: (text, params) => {
      if (text.includes('order by id limit')) looks += 1
      return whole.query(text, params)
    },
  }
  return { looks: () => looks, database: watched }
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

  test('are looked for while others are on their way, and sent when those have landed', async (t) => {
    const scene = await setUp(t)
    const { counting, read, batches } = await openBus(t)
    const { looks, database: watched } = watchLooks(database)
    const landing = Promise.withResolvers<void>()
    t.after(async () => landing.resolve())
    let begun = 0
    const slow: Bus = {
      ...counting,
      async send(messages) {
        begun += 1
        await landing.promise
        await counting.send(messages)
      },
    }
    await scene.put(Array.from({ length: 1_500 }, (_, n) => message(`m${n}`, 'k', 'broker')))
    scene.start({ bus: slow, database: watched })
    await until(() => begun === 1 && looks() === 2)
    await settle()
    assert.equal(begun, 1)
    landing.resolve()
    await emptied(scene)
    assert.deepEqual(batches, [1_000, 500])
    await until(() => read.messages.length === 1_500)
    assert.deepEqual(
      idsOf(read.messages),
      Array.from({ length: 1_500 }, (_, n) => `m${n}`),
    )
  })

  test('do not overtake a batch that fails when they were found already', async (t) => {
    const scene = await setUp(t)
    const { counting, read } = await openBus(t)
    const { looks, database: watched } = watchLooks(database)
    const failing = Promise.withResolvers<void>()
    t.after(async () => failing.resolve())
    let sends = 0
    const shaky: Bus = {
      ...counting,
      async send(messages) {
        sends += 1
        if (sends > 1) return await counting.send(messages)
        await failing.promise
        throw new Error('the broker is away')
      },
    }
    await scene.put(Array.from({ length: 1_500 }, (_, n) => message(`m${n}`, 'k', 'broker')))
    scene.start({ bus: shaky, database: watched })
    await until(() => sends === 1 && looks() === 2)
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

  test('for which nobody waits gather for a moment, and go with what is urgent', async (t) => {
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

  test('are not taken by another instance while they are on their way', async (t) => {
    const scene = await setUp(t)
    const { start, put, clock } = scene
    const { counting, read } = await openBus(t)
    const keys = Array.from({ length: 20 }, (_, n) => `k${n}`)
    const arrived = Promise.withResolvers<void>()
    t.after(async () => arrived.resolve())
    const begun: (string | undefined)[] = []
    const slow: Bus = {
      ...counting,
      async send(messages) {
        begun.push(...idsOf(messages))
        await arrived.promise
        await counting.send(messages)
      },
    }
    start({ bus: slow, soleProcess: false })
    await put(keys.map((key) => message(`${key}/1`, key, 'broker')))
    await until(() => begun.length === keys.length)
    start({ bus: counting, soleProcess: false })
    await put(keys.map((key) => message(`${key}/2`, key, 'broker')))
    await put(keys.map((key) => message(`new ${key}`, `new ${key}`, 'broker')))
    // As long as leases last, and longer: the other one has its share of the lanes that are free.
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

  test('of lanes that another instance has are left to it', async (t) => {
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
    const { looks, database: watched } = watchLooks(database)
    await startAlone(scene, { bus: counting, database: watched })
    await scene.put([message('a1', 'a', 'broker')])
    await emptied(scene)
    const before = looks()
    await scene.put([message('b1', 'b', 'broker'), message('b2', 'b', 'broker')])
    await until(() => batches.length === 2)
    await settle()
    await scene.put([message('c1', 'c', 'broker')])
    await until(() => batches.length === 3)
    await settle()
    assert.equal(looks(), before + 2)
    const left = await scene.waiting()
    assert.deepEqual(
      left.map(({ event_id }) => event_id),
      ['c1'],
    )
    await emptied(scene)
    assert.equal(looks(), before + 3)
    assert.deepEqual(batches, [1, 2, 1])
  })

  test('of which an older one of the key is left follow it', async (t) => {
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

  test('whose commit is announced after a poll has found them are sent once', async (t) => {
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

  test('wait while the broker is away, and go when it is back', async (t) => {
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
    // Time goes on as it does: the relay may have begun its wait, or let its lease lapse, only now.
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

  test('that were sent by one who died before removing them are sent again, as the same events', async (t) => {
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

  test('whose broker says nothing at all stay, and do not hold up the end of the relay', async (t) => {
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
