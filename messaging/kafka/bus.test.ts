import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { Admin, Producer } from '@platformatic/kafka'
import { createTopics } from '../../apps/topics/main.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { busConformance, message, numbered, receive, textOf } from '../bus.conformance.ts'
import type { Bus, TopicSpec } from '../bus.ts'
import { createKafkaBus } from './bus.ts'

const brokers = process.env.TEST_KAFKA_BROKERS
const WITHOUT = 'skipped, because TEST_KAFKA_BROKERS names no broker'
if (brokers === undefined) test(`the bus on Kafka: ${WITHOUT}`, { skip: WITHOUT }, () => undefined)
else {
  busConformance('the bus on Kafka', (topics) => openKafka(brokers, topics))
  interoperability(brokers)
  memberships(brokers)
  takeovers(brokers)
  topicChanges(brokers)
  absence()
}

const HOUR_MS = 3_600_000

function open(at: string, place?: string): Promise<Bus> {
  const log = createLog(process.env.TEST_LOG_LEVEL ?? 'silent', 'kafka-test')
  const options = { brokers: [at], clientId: 'test', runtime: systemRuntime, log }
  return createKafkaBus({ ...options, ...(place !== undefined && { place }) })
}

/** A bus with its own topics; closing the bus deletes them. */
async function openKafka(at: string, topics: readonly TopicSpec[]) {
  await createTopics(at, topics)
  const buses = [await open(at)]
  return {
    bus: buses[0]!,
    async reopen() {
      await buses[0]!.close()
      buses.push(await open(at))
      return buses[1]!
    },
    async close() {
      for (const bus of buses) await bus.close()
      await withAdmin(at, (admin) =>
        admin.deleteTopics({ topics: topics.map(({ name }) => name) }).catch(() => undefined),
      )
    },
  }
}

async function withAdmin(at: string, work: (admin: Admin) => Promise<unknown>): Promise<void> {
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: [at] })
  try {
    await work(admin)
  } finally {
    await admin.close()
  }
}

interface Scene {
  readonly at: string
  readonly bus: Bus
  readonly topic: string
  readonly group: string
}

function behavior(
  at: string,
  sentence: string,
  partitions: number,
  check: (scene: Scene) => Promise<void>,
): void {
  test(`the bus on Kafka: ${sentence}`, { timeout: 60_000 }, async () => {
    const unique = crypto.randomUUID()
    const topic = `t-${unique}`
    const { bus, close } = await openKafka(at, [{ name: topic, partitions, compacted: false }])
    try {
      await check({ at, bus, topic, group: `g-${unique}` })
    } finally {
      await close()
    }
  })
}

function interoperability(at: string): void {
  behavior(
    at,
    'reads messages that a foreign program wrote without key or headers',
    3,
    async (scene) => {
      const { bus, topic, group } = scene
      const foreign = new Producer({ clientId: 'foreign', bootstrapBrokers: [at] })
      const value = Buffer.from('{"event":"ORDER_PAID"}')
      await foreign.send({ messages: [{ topic, value }], acks: -1 })
      await foreign.send({ messages: [{ topic, value }], acks: -1, compression: 'gzip' })
      await foreign.send({ messages: [{ topic, key: Buffer.from('k'), value }], acks: -1 })
      await foreign.close()
      const received = await receive(await bus.subscribe(group, [topic]), 3)
      assert.deepEqual(received.map(({ key }) => key).sort(), ['k', null, null])
      for (const got of received) {
        assert.equal(textOf(got), '{"event":"ORDER_PAID"}')
        assert.deepEqual(got.headers, {})
      }
    },
  )

  behavior(at, 'skips transaction markers and aborted messages', 1, async (scene) => {
    const { bus, topic, group } = scene
    const foreign = new Producer({
      clientId: 'foreign',
      bootstrapBrokers: [at],
      idempotent: true,
      retries: 5,
      transactionalId: crypto.randomUUID(),
    })
    const write = async (text: string, end: 'commit' | 'abort') => {
      const transaction = await foreign.beginTransaction()
      await transaction.send({ messages: [{ topic, value: Buffer.from(text) }] })
      await transaction[end]()
    }
    await write('kept', 'commit')
    await write('aborted', 'abort')
    await write('kept too', 'commit')
    await foreign.close()
    const received = await receive(await bus.subscribe(group, [topic]), 2)
    assert.deepEqual(received.map(textOf), ['kept', 'kept too'])
  })

  behavior(at, 'sends more messages at once than one request can contain', 1, async (scene) => {
    const { bus, topic, group } = scene
    const value = new Uint8Array(100_000)
    const large = Array.from({ length: 30 }, (_, n) => ({ topic, key: `${n}`, value, headers: {} }))
    await bus.send(large)
    const received = await receive(await bus.subscribe(group, [topic]), 30)
    assert.deepEqual(
      received.map(({ key }) => key),
      large.map(({ key }) => key),
    )
    const tooLarge = { topic, key: 'k', value: new Uint8Array(1_000_001), headers: {} }
    await assert.rejects(bus.send([tooLarge]), /larger than/)
  })

  behavior(at, 'fails only the send that names an unknown topic', 1, async (scene) => {
    const { bus, topic, group } = scene
    const outcomes = await Promise.allSettled([
      bus.send(numbered(topic, 3, 1)),
      bus.send(numbered(`${topic}-unknown`, 1, 1)),
      bus.send([message(topic, 'k0', '3')]),
    ])
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled'],
    )
    const received = await receive(await bus.subscribe(group, [topic]), 4)
    assert.deepEqual(received.map(textOf), ['0', '1', '2', '3'])
  })
}

function memberships(at: string): void {
  behavior(
    at,
    'gives the partitions of a killed process to the other members',
    4,
    async (scene) => {
      const { bus, topic, group } = scene
      await bus.send(numbered(topic, 100, 40))
      const doomed = startMember(scene)
      await once(doomed.stdout!, 'data')
      doomed.kill('SIGKILL')
      const received = await receive(await bus.subscribe(group, [topic]), 100)
      const places = received.map(({ partition, offset }) => `${partition}/${offset}`)
      assert.equal(new Set(places).size, 100)
    },
  )

  behavior(at, 'survives the late commit of a process that was frozen', 2, async (scene) => {
    const { bus, topic, group } = scene
    await bus.send(numbered(topic, 20, 20))
    const frozen = startMember(scene)
    await once(frozen.stdout!, 'data')
    frozen.kill('SIGSTOP')
    // The group continues without the frozen member once its session has expired.
    const subscription = await bus.subscribe(group, [topic])
    await receive(subscription, 20)
    frozen.kill('SIGCONT')
    frozen.stdin!.end('commit\n')
    const [line] = (await once(frozen.stdout!, 'data')) as [Buffer]
    assert.equal(String(line).trim(), 'committed')
    const later = numbered(topic, 40, 20).slice(20)
    await bus.send(later)
    const texts = (await receive(subscription, 20)).map(textOf)
    assert.deepEqual(new Set(texts), new Set(later.map(textOf)))
    frozen.kill('SIGKILL')
  })
}

/** Far less than the 10 s after which the session of a killed member expires. */
const TAKEOVER_LIMIT_MS = 5_000

function takeovers(at: string): void {
  behavior(at, 'takes over at once from a killed process with the same place', 4, async (scene) => {
    const { bus, topic, group } = scene
    await bus.send(numbered(topic, 100, 40))
    const doomed = startMember(scene, 'host-1')
    await once(doomed.stdout!, 'data')
    doomed.kill('SIGKILL')
    await withBuses(['host-1'], at, async ([heir]) => {
      const startedMs = performance.now()
      const received = await receive(await heir!.subscribe(group, [topic]), 100)
      assert.ok(performance.now() - startedMs < TAKEOVER_LIMIT_MS)
      const places = received.map(({ partition, offset }) => `${partition}/${offset}`)
      assert.equal(new Set(places).size, 100)
    })
  })

  behavior(at, 'finds partitions that were added before the take-over', 1, async (scene) => {
    const { bus, topic, group } = scene
    await bus.send(numbered(topic, 1, 1))
    const doomed = startMember(scene, 'host-1')
    await once(doomed.stdout!, 'data')
    doomed.kill('SIGKILL')
    await createTopics(at, [{ name: topic, partitions: 1, compacted: false }], { partitions: 4 })
    await withBuses(['host-1'], at, async ([heir]) => {
      await heir!.send(numbered(topic, 100, 40))
      const received = await receive(await heir!.subscribe(group, [topic]), 101)
      assert.equal(new Set(received.map(({ partition }) => partition)).size, 4)
    })
  })

  behavior(at, 'keeps both members if they have the same place by mistake', 4, async (scene) => {
    const { topic, group } = scene
    await withBuses(['host-1', 'host-1'], at, async (buses) => {
      const seen = [new Set<number>(), new Set<number>()]
      // They join one after the other, so that the second replaces a healthy member.
      const older = await buses[0]!.subscribe(group, [topic])
      const subscriptions = [older, await buses[1]!.subscribe(group, [topic])]
      let stopped = false
      const reading = subscriptions.map(async (subscription, index) => {
        while (!stopped) {
          const batches = await subscription.take()
          for (const { partition } of batches) seen[index]!.add(partition)
          await subscription.commit(batches)
        }
      })
      await insist(async () => {
        for (const partitions of seen) partitions.clear()
        const lags = await Promise.all(subscriptions.map((subscription) => subscription.lag()))
        const owned = lags.map((lag) => lag.filter(({ messages }) => messages !== undefined).length)
        assert.deepEqual(owned, [2, 2])
      })
      await buses[0]!.send(numbered(topic, 100, 40))
      await insist(async () =>
        assert.deepEqual(
          seen.map(({ size }) => size),
          [2, 2],
        ),
      )
      stopped = true
      await Promise.all(subscriptions.map((subscription) => subscription.close()))
      await Promise.all(reading)
    })
  })
}

/** Runs `work` with one bus per place, as if each were in its own process. */
async function withBuses(
  places: readonly string[],
  at: string,
  work: (buses: readonly Bus[]) => Promise<void>,
): Promise<void> {
  const buses = await Promise.all(places.map((place) => open(at, place)))
  try {
    await work(buses)
  } finally {
    await Promise.all(buses.map((bus) => bus.close()))
  }
}

/**
 * Starts another process as a member of the group. It takes messages and prints "took". After a line on stdin it
 * commits them, prints "committed" and leaves.
 */
function startMember({ at, topic, group }: Scene, place = ''): ChildProcess {
  const url = (path: string) => JSON.stringify(new URL(path, import.meta.url).href)
  const program = `
    const { createKafkaBus } = await import(${url('./bus.ts')})
    const { systemRuntime } = await import(${url('../../platform/async/runtime.ts')})
    const { createLog } = await import(${url('../../platform/telemetry/telemetry.ts')})
    const { once } = await import('node:events')
    const [at, topic, group, place] = process.argv.slice(1)
    const log = createLog('silent', 'member')
    const options = { brokers: [at], clientId: 'member', runtime: systemRuntime, log }
    const bus = await createKafkaBus(place ? { ...options, place } : options)
    const subscription = await bus.subscribe(group, [topic])
    const batches = await subscription.take()
    console.log('took')
    await once(process.stdin, 'data')
    await subscription.commit(batches)
    console.log('committed')
    await bus.close()
  `
  const args = ['--input-type=module', '-e', program, at, topic, group, place]
  return spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
}

function topicChanges(at: string): void {
  behavior(at, 'finds partitions that are added to a topic later', 1, async (scene) => {
    const { bus, topic, group } = scene
    const subscription = await bus.subscribe(group, [topic])
    await createTopics(at, [{ name: topic, partitions: 1, compacted: false }], { partitions: 4 })
    const seen = new Set<number>()
    for (const deadline = Date.now() + 40_000; seen.size < 4; ) {
      assert.ok(Date.now() < deadline, `only the partitions ${[...seen]} were read`)
      await bus.send(numbered(topic, 40, 40))
      for (const got of await receive(subscription, 1)) seen.add(got.partition)
    }
  })

  behavior(at, 'reads a recreated topic from its start', 1, async (scene) => {
    const { bus, topic, group } = scene
    await bus.send(numbered(topic, 5, 1))
    const subscription = await bus.subscribe(group, [topic])
    const [before] = await receive(subscription, 5)
    await withAdmin(at, (admin) => admin.deleteTopics({ topics: [topic] }))
    await createTopics(at, [{ name: topic, partitions: 1, compacted: false }])
    await insist(() => bus.send([message(topic, 'k', 'new')]))
    const received = await insist(() => receive(subscription, 1))
    assert.deepEqual(received.map(textOf), ['new'])
    assert.equal(received[0]!.offset, 0n)
    assert.ok(before?.topicId)
    assert.notEqual(received[0]!.topicId, before.topicId)
  })

  behavior(at, 'accepts messages from a process whose clock is wrong', 1, async (scene) => {
    const { bus, topic, group } = scene
    const { now } = Date
    try {
      for (const offsetMs of [25 * HOUR_MS, -25 * HOUR_MS]) {
        Date.now = () => now() + offsetMs
        await bus.send([message(topic, 'k', String(offsetMs))])
      }
    } finally {
      Date.now = now
    }
    const received = await receive(await bus.subscribe(group, [topic]), 2)
    assert.deepEqual(received.map(textOf), ['90000000', '-90000000'])
  })

  behavior(
    at,
    'continues with the oldest message if its offset was deleted from the log',
    1,
    async (scene) => {
      const { bus, topic, group } = scene
      await bus.send(numbered(topic, 10, 1))
      const subscription = await bus.subscribe(group, [topic])
      const held = await subscription.take()
      await bus.send(numbered(topic, 10, 1))
      await subscription.close()
      await withAdmin(at, (admin) =>
        admin.deleteRecords({
          topics: [{ name: topic, partitions: [{ partition: 0, offset: 15n }] }],
        }),
      )
      assert.equal(held.length, 1)
      const received = await receive(await bus.subscribe(group, [topic]), 5)
      assert.equal(received[0]!.offset, 15n)
    },
  )
}

function absence(): void {
  test('the bus on Kafka: opens and closes without a broker', async () => {
    const bus = await open('127.0.0.1:9')
    await assert.rejects(bus.ping())
    await assert.rejects(bus.send([message('billing', 'k', 'text')]))
    await assert.rejects(bus.subscribe('group', ['billing']))
    await bus.close()
  })
}

/** Retries `work` for up to 40 s until it succeeds. */
async function insist<T>(work: () => Promise<T>): Promise<T> {
  for (const deadline = Date.now() + 40_000; ; ) {
    try {
      return await work()
    } catch (error) {
      if (Date.now() > deadline) throw error
      await systemRuntime.sleep(100)
    }
  }
}
