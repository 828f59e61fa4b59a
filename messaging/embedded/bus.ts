import { coalesce } from '../../platform/async/coalesce.ts'
import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { migrate } from '../../platform/database/migrate.ts'
import type { Bus, OutgoingMessage, Subscription, TopicSpec } from '../bus.ts'
import { type Group, type LogEnd, openSubscription, partitionKey, wakeMembers } from './group.ts'
import { createLog, type EmbeddedLog, embeddedBusMigrations, type Position } from './log.ts'
import { partitionOf } from './partitioner.ts'

/**
 * The bus in the embedded database: a durable log, and consumer groups with all their members in this
 * process.
 */
export interface EmbeddedBus extends Bus {
  /** Runs retention and compaction now. The bus does so by itself about once a minute. */
  maintain(): Promise<void>
  /** Simulates a broker outage for experiments: until `resume`, every call fails as if the broker were down. */
  pause(): void
  resume(): void
}

export interface EmbeddedBusOptions {
  /** A database that only this process uses. The bus does not close it. */
  readonly database: Database
  readonly runtime: Runtime
  readonly topics: readonly TopicSpec[]
  readonly log?: Log
  /** How long messages are kept that every known group has read. */
  readonly retentionMs?: number
  /** The most messages that one take returns, over all its partitions. */
  readonly maxBatchMessages?: number
  readonly schema?: string
}

const RETENTION_MS = 7 * 24 * 3600 * 1000
const MAX_BATCH_MESSAGES = 500
/** Kafka's default limit, so that every message that is accepted here is also accepted by Kafka. */
const MAX_MESSAGE_BYTES = 1_000_000
const MAX_SENDS_PER_STATEMENT = 500
const MAX_WAITING_SENDS = 50_000
const MAINTENANCE_INTERVAL_MS = 60_000
/** Messages per partition and maintenance statement; all other statements wait while one runs. */
const MAINTENANCE_MESSAGES = 250

export async function createEmbeddedBus(options: EmbeddedBusOptions): Promise<EmbeddedBus> {
  const { database, schema = 'bus', maxBatchMessages = MAX_BATCH_MESSAGES } = options
  await migrate(database, schema, embeddedBusMigrations(schema))
  const log = createLog(database, schema)
  await log.declareTopics(options.topics)
  const ends = new Map<string, LogEnd>()
  const partitionCounts = new Map<string, number>()
  for (const end of await log.ends()) {
    ends.set(partitionKey(end), { ...end })
    partitionCounts.set(end.topic, (partitionCounts.get(end.topic) ?? 0) + 1)
  }
  const groups = new Map<string, Group>()
  const subscriptions = new Set<Subscription>()
  const sending = new Set<Promise<void>>()
  const closing = new AbortController()
  let paused = false

  function assertReachable(): void {
    if (closing.signal.aborted) throw new Error('the bus is closed')
    if (paused) throw new Error('the broker cannot be reached')
  }

  function partitionsOf(topic: string): number {
    const count = partitionCounts.get(topic)
    if (count === undefined) throw new Error(`there is no topic ${topic}`)
    return count
  }

  /** Moves the known ends of partitions forward and wakes the members of all groups. */
  function advance(positions: readonly Position[]): void {
    for (const position of positions) {
      const end = ends.get(partitionKey(position))
      if (end && end.offset < position.offset) end.offset = position.offset
    }
    for (const group of groups.values()) wakeMembers(group)
  }

  const append = coalesce<readonly OutgoingMessage[], void>({
    maxBatch: MAX_SENDS_PER_STATEMENT,
    maxQueue: MAX_WAITING_SENDS,
    overflow: () => new Error('too many messages are waiting to be written'),
    async run(sends) {
      const placed = sends.flat().map((message) => ({
        ...message,
        partition: partitionOf(message.key, partitionsOf(message.topic)),
      }))
      advance(await log.append(placed))
      return sends.map(() => undefined)
    },
  })

  const maintenance = maintainLog(options, log, closing.signal, async () =>
    advance(await log.ends()),
  )

  return {
    async send(messages) {
      assertReachable()
      if (messages.length === 0) return
      for (const message of messages) {
        partitionsOf(message.topic)
        rejectUnstorable(message)
      }
      const sent = append(messages)
      sending.add(sent)
      await sent.finally(() => sending.delete(sent))
    },

    async subscribe(name, topics) {
      assertReachable()
      topics.forEach(partitionsOf)
      const positions = await log.joinGroup(name, topics)
      assertReachable()
      const group = groups.get(name) ?? { name, shares: new Map(), members: new Set() }
      groups.set(name, group)
      const subscription = openSubscription({
        log,
        group,
        topics,
        positions,
        ends,
        maxBatchMessages,
        assertReachable,
      })
      subscriptions.add(subscription)
      const close = () => {
        subscriptions.delete(subscription)
        return subscription.close()
      }
      return { ...subscription, close }
    },

    async ping() {
      assertReachable()
      await log.ping()
    },

    maintain: maintenance.run,
    pause() {
      paused = true
    },
    resume() {
      paused = false
    },

    async close() {
      closing.abort()
      await Promise.all([...subscriptions].map((subscription) => subscription.close()))
      await Promise.allSettled(sending)
      await maintenance.ended
    },
  }
}

/** Rejects a message that the database cannot store, before it would fail the batch that it shares with others. */
function rejectUnstorable({ topic, key, value }: OutgoingMessage): void {
  if (key.includes('\0')) throw new Error(`a key on ${topic} contains a NUL character`)
  if (value !== null && value.byteLength > MAX_MESSAGE_BYTES) {
    throw new Error(`a message on ${topic} is larger than ${MAX_MESSAGE_BYTES} bytes`)
  }
}

function maintainLog(
  options: EmbeddedBusOptions,
  log: EmbeddedLog,
  closing: AbortSignal,
  refreshEnds: () => Promise<void>,
) {
  const { runtime, retentionMs = RETENTION_MS } = options

  async function run(): Promise<void> {
    for (let more = true; more && !closing.aborted; ) {
      more = (await log.compact(MAINTENANCE_MESSAGES)).more
    }
    for (let more = true; more && !closing.aborted; ) {
      const deleted = await log.expire(retentionMs, MAINTENANCE_MESSAGES)
      more = deleted >= MAINTENANCE_MESSAGES
    }
    // A statement may have committed although its send was rejected, so the ends of the partitions are read
    // again.
    await refreshEnds()
  }

  async function loop(): Promise<void> {
    while (!closing.aborted) {
      await runtime.sleep(MAINTENANCE_INTERVAL_MS, closing)
      if (closing.aborted) return
      await run().catch((error) =>
        options.log?.warn({ err: error }, 'log maintenance failed; it will run again'),
      )
    }
  }

  return { run, ended: loop() }
}
