// Long because one suite covers all promises of a bus.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { until } from '../platform/async/until.ts'
import type { Batch, Bus, BusMessage, OutgoingMessage, Subscription, TopicSpec } from './bus.ts'
import { partitionOf } from './embedded/partitioner.ts'

const REBALANCE_LIMIT_MS = 40_000

/**
 * The behavior that every bus must have. Each test uses its own names for topics and groups, so that the tests can
 * share one broker.
 */
export interface BusUnderTest {
  readonly bus: Bus
  /** Opens the same log again, as a later process would. */
  reopen(): Promise<Bus>
  close(): Promise<void>
}

export type OpenBus = (topics: readonly TopicSpec[]) => Promise<BusUnderTest>

export function busConformance(name: string, open: OpenBus): void {
  const suite = { name, open }
  delivery(suite)
  progress(suite)
  lag(suite)
  membership(suite)
}

interface Suite {
  readonly name: string
  readonly open: OpenBus
}

interface Scene {
  readonly bus: Bus
  readonly topic: string
  /** A second topic, with one partition. */
  readonly other: string
  readonly group: string
  readonly reopen: () => Promise<Bus>
}

function behavior(
  suite: Suite,
  sentence: string,
  partitions: number,
  check: (scene: Scene) => Promise<void>,
): void {
  test(`${suite.name}: ${sentence}`, { timeout: 60_000 }, async () => {
    const unique = crypto.randomUUID()
    const topic = `t-${unique}`
    const other = `o-${unique}`
    const under = await suite.open([
      { name: topic, partitions, compacted: false },
      { name: other, partitions: 1, compacted: false },
    ])
    const { bus, reopen } = under
    try {
      await check({ bus, topic, other, group: `g-${unique}`, reopen })
    } finally {
      await under.close()
    }
  })
}

function delivery(suite: Suite): void {
  behavior(
    suite,
    'keeps the order of each key, with consecutive ascending offsets',
    4,
    async (scene) => {
      const { bus, topic, group } = scene
      const messages = numbered(topic, 200, 17)
      await bus.send(messages.slice(0, 120))
      await bus.send(messages.slice(120))
      const received = await receive(await bus.subscribe(group, [topic]), 200)
      for (let key = 0; key < 17; key += 1) {
        const expected = messages.filter((message) => message.key === `k${key}`).map(textOf)
        const got = received.filter((message) => message.key === `k${key}`)
        assert.deepEqual(got.map(textOf), expected)
        assert.equal(new Set(got.map(({ partition }) => partition)).size, 1)
      }
      for (let partition = 0; partition < 4; partition += 1) {
        const offsets = received
          .filter((m) => m.partition === partition)
          .map(({ offset }) => offset)
        assert.deepEqual(offsets, [...offsets.keys()].map(BigInt))
      }
    },
  )

  behavior(suite, 'keeps the order of concurrent sends of one sender', 3, async (scene) => {
    const { bus, topic, group } = scene
    const messages = numbered(topic, 60, 1)
    await Promise.all(messages.map((message) => bus.send([message])))
    const received = await receive(await bus.subscribe(group, [topic]), 60)
    assert.deepEqual(received.map(textOf), messages.map(textOf))
  })

  behavior(suite, 'delivers bytes, headers, tombstones and keys unchanged', 1, async (scene) => {
    const { bus, topic, group } = scene
    const headers = { ce_id: '1', 'x-text': 'ключ "quoted" \\ 🗝️', empty: '' }
    const messages: OutgoingMessage[] = [
      { topic, key: 'ключ', value: Uint8Array.from({ length: 256 }, (_, i) => i), headers },
      { topic, key: 'gone', value: null, headers: {} },
      { topic, key: 'empty', value: new Uint8Array(0), headers: {} },
      { topic, key: '{"a,b"} \\ NULL', value: new TextEncoder().encode('null'), headers: {} },
    ]
    await bus.send(messages)
    const received = await receive(await bus.subscribe(group, [topic]), messages.length)
    for (const [index, { key, value, headers }] of messages.entries()) {
      const got = received[index]!
      assert.equal(got.key, key)
      assert.deepEqual(got.headers, headers)
      assert.deepEqual(got.value && [...got.value], value && [...value])
    }
  })

  behavior(
    suite,
    'sends to several topics at once and reads them as one group',
    2,
    async (scene) => {
      const { bus, topic, other, group } = scene
      await bus.send([])
      await bus.send([message(topic, 'k', 'here'), message(other, 'k', 'there')])
      const received = await receive(await bus.subscribe(group, [topic, other]), 2)
      assert.deepEqual(
        new Set(received.map((m) => `${m.topic} ${textOf(m)}`)),
        new Set([`${topic} here`, `${other} there`]),
      )
    },
  )

  behavior(suite, "puts a key into the same partition as Kafka's Java client", 7, async (scene) => {
    const { bus, topic, group } = scene
    await bus.send(['21', 'foobar', 'abc', 'ключ', ''].map((key) => message(topic, key, key)))
    for (const { key, partition } of await receive(await bus.subscribe(group, [topic]), 5)) {
      assert.equal(partition, partitionOf(key!, 7))
    }
  })

  behavior(
    suite,
    'rejects a topic that does not exist and does not create it',
    1,
    async (scene) => {
      const { bus, topic } = scene
      const unknown = `${topic}-unknown`
      await assert.rejects(bus.send(numbered(unknown, 1, 1)))
      await assert.rejects(bus.send(numbered(unknown, 1, 1)))
      await bus.send(numbered(topic, 1, 1))
    },
  )

  behavior(suite, 'delivers a large backlog in bounded batches', 2, async (scene) => {
    const { bus, topic, group } = scene
    const messages = numbered(topic, 3000, 50)
    await bus.send(messages)
    const subscription = await bus.subscribe(group, [topic])
    const received: BusMessage[] = []
    while (received.length < messages.length) {
      const batches = await subscription.take()
      for (const batch of batches) {
        assert.ok(batch.messages.length > 0 && batch.messages.length <= 1000)
        received.push(...batch.messages)
      }
      await subscription.commit(batches)
    }
    assert.equal(new Set(received.map(textOf)).size, messages.length)
    assert.equal(received.length, messages.length)
  })
}

function progress(suite: Suite): void {
  behavior(
    suite,
    'delivers everything to each group, to a new group from the start of the log',
    2,
    async (scene) => {
      const { bus, topic, group } = scene
      await bus.send(numbered(topic, 20, 5))
      const first = await receive(await bus.subscribe(`${group}-a`, [topic]), 20)
      await bus.send(numbered(topic, 10, 5))
      const second = await receive(await bus.subscribe(`${group}-b`, [topic]), 30)
      assert.equal(new Set(places(first)).size, 20)
      assert.equal(new Set(places(second)).size, 30)
    },
  )

  behavior(suite, 'wakes a waiting take when a message is sent', 2, async (scene) => {
    const { bus, topic, group } = scene
    const subscription = await bus.subscribe(group, [topic])
    const taking = subscription.take()
    await bus.send(numbered(topic, 1, 1))
    const batches = await taking
    assert.deepEqual(batches.flatMap(({ messages }) => messages).map(textOf), ['0'])
  })

  behavior(
    suite,
    'yields nothing more of a partition until its batch is committed or released',
    2,
    async (scene) => {
      const { bus, topic, group } = scene
      const keys = Array.from({ length: 32 }, (_, n) => `k${n}`)
      const mine = keys.find((key) => partitionOf(key, 2) === 0)!
      const other = keys.find((key) => partitionOf(key, 2) === 1)!
      const subscription = await bus.subscribe(group, [topic])
      await bus.send([message(topic, mine, 'first')])
      const held = await subscription.take()
      await bus.send([message(topic, mine, 'second'), message(topic, other, 'beside')])
      const next = await subscription.take()
      assert.deepEqual(next.flatMap(({ messages }) => messages).map(textOf), ['beside'])
      await subscription.commit(next)
      await subscription.commit(held)
      const last = await subscription.take()
      assert.deepEqual(last.flatMap(({ messages }) => messages).map(textOf), ['second'])
    },
  )

  behavior(suite, 'delivers a released batch again', 1, async (scene) => {
    const { bus, topic, group } = scene
    await bus.send(numbered(topic, 5, 2))
    const subscription = await bus.subscribe(group, [topic])
    const batches = await subscription.take()
    subscription.release(batches)
    await subscription.commit(batches)
    const again = await receive(subscription, 5)
    assert.deepEqual(again.map(textOf), ['0', '1', '2', '3', '4'])
  })

  behavior(
    suite,
    'continues after the committed offset, also in a later process',
    1,
    async (scene) => {
      const { bus, topic, group, reopen } = scene
      await bus.send(numbered(topic, 5, 1))
      const subscription = await bus.subscribe(group, [topic])
      assert.equal((await receive(subscription, 5)).length, 5)
      await bus.send([message(topic, 'k', 'taken, not committed')])
      const lost = await subscription.take()
      assert.equal(lost.length, 1)
      const later = await reopen()
      await later.send([message(topic, 'k', 'sent later')])
      const received = await receive(await later.subscribe(group, [topic]), 2)
      assert.deepEqual(received.map(textOf), ['taken, not committed', 'sent later'])
      assert.deepEqual(
        received.map(({ offset }) => offset),
        [5n, 6n],
      )
      const [topicId] = lost[0]!.messages.map((message) => message.topicId)
      assert.ok(topicId)
      assert.ok(received.every((message) => message.topicId === topicId))
    },
  )
}

function lag(suite: Suite): void {
  behavior(suite, 'counts uncommitted messages as lag, taken or not', 2, async (scene) => {
    const { bus, topic, group } = scene
    const subscription = await bus.subscribe(group, [topic])
    const behind = async () => (await subscription.lag()).map(({ messages }) => messages)
    await bus.send(numbered(topic, 20, 20))
    const held = await takeAll(subscription, 20)
    assert.equal(sum(await behind()), 20)
    await subscription.commit(held)
    assert.deepEqual(await behind(), [0, 0])
    await bus.send(numbered(topic, 3, 3))
    assert.equal(sum(await behind()), 3)
  })

  behavior(
    suite,
    'reports the lag of its own partitions only',
    4,
    async ({ bus, topic, group }) => {
      const members = [await bus.subscribe(group, [topic]), await bus.subscribe(group, [topic])]
      const works = members.map(async (member) => {
        for (let batches = await member.take(); batches.length > 0; batches = await member.take()) {
          await member.commit(batches)
        }
      })
      const known = async (member: Subscription) =>
        (await member.lag()).filter(({ messages }) => messages !== undefined).length
      const [first, second] = members as [Subscription, Subscription]
      const shared = async () => (await known(first)) === 2 && (await known(second)) === 2
      await until(shared, { limitMs: REBALANCE_LIMIT_MS })
      assert.equal((await first.lag()).length, 4)
      await first.close()
      await until(async () => (await known(second)) === 4, { limitMs: REBALANCE_LIMIT_MS })
      await second.close()
      await Promise.all(works)
    },
  )
}

const sum = (numbers: readonly (number | undefined)[]) =>
  numbers.reduce<number>((total, one) => total + (one ?? Number.NaN), 0)

function membership(suite: Suite): void {
  behavior(
    suite,
    'resolves a waiting take with an empty list when it is closed',
    1,
    async (scene) => {
      const { bus, topic, group } = scene
      const subscription = await bus.subscribe(group, [topic])
      const taking = subscription.take()
      await subscription.close()
      assert.deepEqual(await taking, [])
      assert.deepEqual(await subscription.take(), [])
    },
  )

  behavior(suite, 'divides partitions among members and loses no message', 4, async (scene) => {
    const { bus, topic, group } = scene
    const seen = new Set<string>()
    const secondHasWorked = Promise.withResolvers<void>()
    const everything = Promise.withResolvers<void>()
    let sent = 0
    let awaited = Number.POSITIVE_INFINITY
    const send = async () => {
      await bus.send(numbered(topic, 40, 40))
      sent += 40
    }
    const work = async (subscription: Subscription, onBatches: () => void) => {
      for (;;) {
        const batches = await subscription.take()
        if (batches.length === 0) return
        onBatches()
        for (const { messages } of batches) for (const place of places(messages)) seen.add(place)
        await subscription.commit(batches)
        if (seen.size === awaited) everything.resolve()
      }
    }
    await send()
    const first = await bus.subscribe(group, [topic])
    const firstWorks = work(first, () => {})
    await send()
    const second = await bus.subscribe(group, [topic])
    const secondWorks = work(second, secondHasWorked.resolve)
    await repeatUntil(secondHasWorked.promise, send)
    await first.close()
    awaited = sent + 40
    await send()
    await everything.promise
    await second.close()
    await Promise.all([firstWorks, secondWorks])
  })

  behavior(
    suite,
    'ignores the late commit of a member that lost the partition',
    2,
    async (scene) => {
      const { bus, topic, group } = scene
      await bus.send(numbered(topic, 40, 20))
      const old = await bus.subscribe(group, [topic])
      const held = await takeAll(old, 40)
      const young = await bus.subscribe(group, [topic])
      const moved = await young.take()
      assert.ok(moved.length > 0)
      await old.commit(held)
      await young.close()
      const undone = held
        .filter(({ partition }) => moved.some((batch) => batch.partition === partition))
        .flatMap(({ messages }) => messages)
      assert.deepEqual(places(await receive(old, undone.length)), places(undone))
    },
  )

  behavior(
    suite,
    'gives batches that a member took and did not commit to the others',
    1,
    async (scene) => {
      const { bus, topic, group } = scene
      await bus.send(numbered(topic, 7, 3))
      const leaving = await bus.subscribe(group, [topic])
      await takeAll(leaving, 7)
      await leaving.close()
      const received = await receive(await bus.subscribe(group, [topic]), 7)
      assert.equal(received.length, 7)
    },
  )

  behavior(suite, 'ends its subscriptions when it is closed', 1, async (scene) => {
    const { bus, topic, group } = scene
    const taking = (await bus.subscribe(group, [topic])).take()
    await bus.close()
    assert.deepEqual(await taking, [])
    await assert.rejects(bus.send(numbered(topic, 1, 1)))
    await assert.rejects(bus.ping())
  })
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export function message(topic: string, key: string, text: string): OutgoingMessage {
  return { topic, key, value: encoder.encode(text), headers: { n: text } }
}

export function numbered(topic: string, count: number, keys: number): OutgoingMessage[] {
  return Array.from({ length: count }, (_, n) => message(topic, `k${n % keys}`, String(n)))
}

export const textOf = ({ value }: { value: Uint8Array | null }) => value && decoder.decode(value)

const places = (messages: readonly BusMessage[]) =>
  messages.map(({ partition, offset }) => `${partition}/${offset}`)

/** Takes and commits until it has received at least `count` messages. */
export async function receive(subscription: Subscription, count: number): Promise<BusMessage[]> {
  const received: BusMessage[] = []
  while (received.length < count) {
    const batches = await subscription.take()
    received.push(...batches.flatMap(({ messages }) => messages))
    await subscription.commit(batches)
  }
  return received
}

/** Takes at least `count` messages without committing any. */
async function takeAll(subscription: Subscription, count: number): Promise<Batch[]> {
  const held: Batch[] = []
  while (held.reduce((sum, { messages }) => sum + messages.length, 0) < count) {
    held.push(...(await subscription.take()))
  }
  return held
}

async function repeatUntil(done: Promise<void>, step: () => Promise<void>): Promise<void> {
  let isDone = false
  void done.then(() => {
    isDone = true
  })
  while (!isDone) await step()
}
