import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createTopics } from '../../apps/topics/main.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { startKafka } from '../../tools/servers/kafka.ts'
import { message, textOf } from '../bus.conformance.ts'
import type { Bus, Subscription } from '../bus.ts'
import { createKafkaBus } from './bus.ts'

// The test freezes and kills its broker, so it starts its own.
const WITHOUT = 'skipped, because TEST_KAFKA_BROKERS is not set'
const skip = process.env.TEST_KAFKA_BROKERS === undefined ? WITHOUT : false
const KEYS = 20
/** Together with the ping before it, longer than the session timeout and the request timeout. */
const FREEZE_MS = 12_000

const NAME = 'the bus on Kafka: loses no message while its broker is frozen, killed and restarted'

test(skip ? `${NAME} (${skip})` : NAME, { skip, timeout: 240_000 }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'trifold-kafka-'))
  const kafka = await startKafka({ folder })
  const log = createLog(process.env.TEST_LOG_LEVEL ?? 'silent', 'outages')
  const open = (clientId: string) =>
    createKafkaBus({ brokers: [kafka.brokers], clientId, runtime: systemRuntime, log })
  await createTopics(kafka.brokers, [{ name: 'flow', partitions: 4, compacted: false }])
  const sendingBus = await open('sender')
  const sender = startSender(sendingBus)
  const reader = startReaders([await open('one'), await open('two')])
  try {
    await reader.until(() => reader.handled.size > 500)

    await kafka.server.freeze()
    await assert.rejects(sendingBus.ping())
    await systemRuntime.sleep(FREEZE_MS)
    const frozenAt = sender.acknowledged.length
    await kafka.server.thaw()
    const thawedMs = Date.now()
    await reader.until(() => sender.acknowledged.length > frozenAt)
    await reader.until(() => sender.acknowledged.every((text) => reader.handled.has(text)))
    t.diagnostic(`all messages were handled ${Date.now() - thawedMs} ms after the thaw`)
    await reader.until(() => sender.acknowledged.length > frozenAt + 500)

    await kafka.server.kill()
    await assert.rejects(sendingBus.ping())
    await kafka.server.start()
    const restartedMs = Date.now()
    const killedAt = sender.acknowledged.length
    await reader.until(() => sender.acknowledged.length > killedAt)
    await reader.until(() => sender.acknowledged.every((text) => reader.handled.has(text)))
    t.diagnostic(`all messages were handled ${Date.now() - restartedMs} ms after the restart`)
    await reader.until(() => sender.acknowledged.length > killedAt + 500)

    await sender.stop()
    await reader.until(() => sender.acknowledged.every((text) => reader.handled.has(text)))
    t.diagnostic(`${sender.acknowledged.length} sent, ${reader.repeats()} handled again`)
    assert.deepEqual(reader.outOfOrder, [])
  } finally {
    await Promise.all([sender.stop(), reader.stop()])
    await sendingBus.close()
    await kafka.close()
    await rm(folder, { recursive: true })
  }
})

/** Sends ascending numbers for each key, one at a time, and repeats each send until it succeeds. */
function startSender(bus: Bus) {
  const acknowledged: string[] = []
  let stopped = false
  async function run(): Promise<void> {
    for (let n = 0; !stopped; n += KEYS) {
      const texts = Array.from({ length: KEYS }, (_, key) => String(n + key))
      const messages = texts.map((text, key) => message('flow', `k${key}`, text))
      for (let sent = false; !sent && !stopped; ) {
        sent = await bus.send(messages).then(
          () => true,
          () => false,
        )
        await systemRuntime.sleep(20)
      }
      if (!stopped) acknowledged.push(...texts)
    }
  }
  const running = run()
  return {
    acknowledged,
    stop() {
      stopped = true
      return running
    },
  }
}

/**
 * Members of one group. They count how often each number was handled, and record each number that arrived before its
 * predecessor of the same key.
 */
function startReaders(buses: readonly Bus[]) {
  const handled = new Map<string, number>()
  const outOfOrder: string[] = []
  let stopped = false

  function handle(text: string): void {
    const before = String(Number(text) - KEYS)
    if (!handled.has(text) && Number(before) >= 0 && !handled.has(before)) outOfOrder.push(text)
    handled.set(text, (handled.get(text) ?? 0) + 1)
  }

  async function read(bus: Bus): Promise<void> {
    let subscription: Subscription | undefined
    let failed = false
    while (!stopped) {
      try {
        if (failed) await bus.ping()
        failed = false
        subscription ??= await bus.subscribe('readers', ['flow'])
        const batches = await subscription.take()
        for (const { messages } of batches) for (const got of messages) handle(textOf(got)!)
        await subscription.commit(batches).finally(() => subscription?.release(batches))
      } catch {
        failed = true
        await systemRuntime.sleep(100)
      }
    }
    await subscription?.close()
  }

  const running = Promise.all(buses.map(read))
  return {
    handled,
    outOfOrder,
    repeats: () => [...handled.values()].reduce((sum, times) => sum + times - 1, 0),
    async until(condition: () => boolean): Promise<void> {
      for (const deadline = Date.now() + 60_000; !condition(); ) {
        assert.ok(Date.now() < deadline, `${condition} did not come true`)
        await systemRuntime.sleep(20)
      }
    },
    async stop() {
      stopped = true
      await Promise.all(buses.map((bus) => bus.close()))
      await running
    },
  }
}
