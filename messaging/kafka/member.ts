import { ConnectionPool, Consumer, type ConsumerGroupJoinPayload } from '@platformatic/kafka'
import { inTurn } from '../../platform/async/coalesce.ts'
import { type Log, type Runtime, WOKEN } from '../../platform/async/runtime.ts'
import type { Batch, PartitionLag } from '../bus.ts'
import { isKafkaError, isUnavailable, needsRejoin, within } from './faults.ts'
import { createFetcher } from './fetcher.ts'
import { lagOf } from './lag.ts'
import { type Committable, createPartitions, type Partitions } from './partitions.ts'
import type { KafkaSecurity } from './security.ts'

/**
 * One membership of a consumer group, from joining to leaving. The Kafka client sends heartbeats and follows
 * rebalances by itself. A failure that it cannot recover from ends the membership, and a new one must be created.
 */
export interface Member {
  join(): Promise<void>
  /** The error that ended this membership; undefined while it lasts. */
  failure(): unknown
  /** Takes the fetched messages, if there are any. */
  take(): Batch[]
  /** Resolves when there may be messages to take, or when the state of the membership has changed. */
  poll(): Promise<void>
  commit(batches: readonly Batch[]): Promise<void>
  release(batches: readonly Batch[]): void
  lag(): Promise<PartitionLag[]>
  close(): Promise<void>
}

export interface MemberOptions {
  readonly brokers: readonly string[]
  readonly security: KafkaSecurity
  readonly clientId: string
  readonly group: string
  readonly topics: readonly string[]
  /**
   * Where this process runs. If an older member has the same place, its process must be gone, and a new
   * member takes over its partitions instead of waiting for its session to expire.
   */
  readonly place?: string
  readonly maxBatchMessages: number
  readonly runtime: Runtime
  readonly log: Log
}

const SESSION_TIMEOUT_MS = 10_000
const REBALANCE_TIMEOUT_MS = 15_000
const HEARTBEAT_MS = 3_000
const REQUEST_TIMEOUT_MS = 20_000
/** Longer than `REQUEST_TIMEOUT_MS`, so that the reason for missing heartbeats is known by then. */
const STALL_TIMEOUT_MS = 30_000
const CONNECTION = { connectTimeout: 3_000, requestTimeout: REQUEST_TIMEOUT_MS }
const CLOSE_LIMIT_MS = 5_000
const JOIN_ATTEMPTS = 20
const JOIN_PAUSE_MS = 200
/**
 * The group's coordinator is not ready yet, for example before the first group of a cluster or after a
 * broker's start.
 */
const COORDINATOR_ERRORS = [
  'COORDINATOR_NOT_AVAILABLE',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'NOT_COORDINATOR',
]
const COMMIT_ATTEMPTS = 5
/** How long offsets are gathered before a commit. After a crash, messages settled in that time are redelivered. */
const GATHER_MS = 50
/** A handler that hangs is never aborted, but a batch held for this long is logged. */
const OVERDUE_MS = 60_000
/** The longest time that `poll` waits for a change. */
const POLL_LIMIT_MS = 5_000

export function createMember(options: MemberOptions): Member {
  const { topics, runtime, log } = options
  const consumer = createConsumer(options)
  const fetching = new ConnectionPool(options.clientId, { ...options.security, ...CONNECTION })
  const partitions = createPartitions()
  const { wake, waitForChange } = createChange(runtime)
  let joined: ConsumerGroupJoinPayload | undefined
  let failure: unknown
  let closed: Promise<void> | undefined

  function fail(error: unknown): void {
    failure ??= error
    partitions.clear()
    wake()
  }

  /** Joins the group, with retries: the next rebalance can begin before this one has ended. */
  async function join(): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const takesOver = consumer.groupInstanceId !== null
      try {
        await consumer.joinGroup()
        // A take-over keeps the old assignment, which lacks partitions added while the group had no leader.
        // If the new member is the leader, a second join makes the group compute the assignment again.
        if (takesOver && joined?.isLeader) await consumer.joinGroup()
        return
      } catch (error) {
        // Another live process has the same place. Both become ordinary members without a fixed id.
        if (isKafkaError(error, 'FENCED_INSTANCE_ID')) consumer.groupInstanceId = null
        if (closed || attempt === JOIN_ATTEMPTS || !canJoinLater(error)) throw error
        await runtime.sleep(JOIN_PAUSE_MS)
      }
    }
  }

  consumer.on('consumer:group:join', (now) => {
    consumer.groupInstanceId = null
    // If a generation was missed, another member may have owned the partitions in it.
    if (!follows(joined, now)) partitions.clear()
    joined = now
    if (failure === undefined && !closed) partitions.assign(now.assignments ?? [])
    wake()
  })
  consumer.on('consumer:heartbeat:stalled', ({ lastError }) => {
    // While the broker is down the client keeps trying, and that is the fastest way to recover.
    if (isUnavailable(lastError)) return
    fail(lastError ?? new Error('the broker does not answer the heartbeats of a group member'))
  })
  // An `error` event without a listener would end the process.
  ;(consumer as ErrorSource).on('error', (error) => {
    if (needsRejoin(error)) void join().catch(fail)
    else fail(error)
  })

  const fetcher = createFetcher({
    consumer,
    topics,
    partitions,
    log,
    connections: fetching,
    onPartitionsAdded: () => {
      if (joined?.isLeader) void join().catch(fail)
    },
    onTopicRecreated: (topic) => fail(new Error(`the topic ${topic} was deleted and recreated`)),
  })

  /** Waits for the next generation of the group. Resolves with false if it does not come in time. */
  async function rejoined(past: ConsumerGroupJoinPayload | undefined): Promise<boolean> {
    const until = runtime.monotonic() + REBALANCE_TIMEOUT_MS
    while (joined === past && failure === undefined && !closed && runtime.monotonic() < until) {
      await waitForChange(until - runtime.monotonic())
    }
    return joined !== past || failure !== undefined || closed !== undefined
  }

  const commitSettled = createCommit(
    { consumer, partitions, runtime },
    {
      current: () => joined,
      isJoining: () => consumer.generationId !== joined?.generationId || !consumer.memberId,
      rejoined,
    },
  )

  async function leave(): Promise<void> {
    partitions.clear()
    wake()
    // Closing its connection ends the fetch in flight.
    disconnect(fetching)
    await closeConsumer(consumer, runtime)
  }

  return {
    join,
    failure: () => failure,
    take: () => partitions.take(options.maxBatchMessages, runtime.monotonic()),
    async poll() {
      if (closed || failure !== undefined) return
      for (const { topic, partition } of partitions.overdue(runtime.monotonic() - OVERDUE_MS)) {
        log.error({ topic, partition }, 'a batch has not been settled for a minute')
      }
      await waitForChange(POLL_LIMIT_MS, [fetcher.fetch()])
    },
    async commit(batches) {
      partitions.settle(batches)
      wake()
      await commitSettled()
    },
    release(batches) {
      partitions.release(batches)
      wake()
    },
    lag: () => lagOf(consumer, topics, partitions),
    close() {
      closed ??= leave()
      return closed
    },
  }
}

async function closeConsumer(consumer: Consumer, runtime: Runtime): Promise<void> {
  if (await within(CLOSE_LIMIT_MS, runtime, consumer.close())) return
  // An unresponsive broker does not answer. Without connections the client closes at once.
  disconnect(consumer.connections)
  await within(CLOSE_LIMIT_MS, runtime, consumer.close())
}

/** Lets a member wait until its state changes. */
function createChange(runtime: Runtime) {
  const wakers = new Set<() => void>()
  return {
    wake() {
      for (const waker of wakers) waker()
    },

    /** Resolves at the next change, when any of `work` ends, or after `limitMs`. */
    async waitForChange(limitMs: number, work: Promise<void>[] = []): Promise<void> {
      const change = Promise.withResolvers<void>()
      const timer = new AbortController()
      wakers.add(change.resolve)
      try {
        await Promise.race([...work, change.promise, runtime.sleep(limitMs, timer.signal)])
      } finally {
        wakers.delete(change.resolve)
        timer.abort(WOKEN)
      }
    },
  }
}

interface CommitOptions extends Pick<MemberOptions, 'runtime'> {
  readonly consumer: Consumer
  readonly partitions: Partitions
}

interface Generations {
  current(): ConsumerGroupJoinPayload | undefined
  /** Whether the client is rejoining. Until it has, it does not know which partitions it owns. */
  isJoining(): boolean
  /** Waits for the generation after `past`. Resolves with false if it does not come in time. */
  rejoined(past: ConsumerGroupJoinPayload | undefined): Promise<boolean>
}

/**
 * Commits the offsets of all settled messages. Commits run one after the other, so that a late commit cannot
 * move the group's offsets back. They are gathered for `GATHER_MS`, because no request waits for them and a
 * commit costs the same for one batch as for many.
 */
function createCommit(
  { consumer, partitions, runtime }: CommitOptions,
  generations: Generations,
): () => Promise<void> {
  return inTurn(async () => {
    await runtime.sleep(GATHER_MS)
    for (let attempt = 1; ; attempt += 1) {
      if (generations.isJoining()) await generations.rejoined(generations.current())
      const offsets = partitions.uncommitted()
      if (offsets.length === 0) return
      const generation = generations.current()
      try {
        await consumer.commit({ offsets: offsets.map(toOffset) })
        partitions.committed(offsets)
        return
      } catch (error) {
        if (attempt === COMMIT_ATTEMPTS || !needsRejoin(error)) throw error
        if (!(await generations.rejoined(generation))) throw error
      }
    }
  })
}

function createConsumer(options: MemberOptions): Consumer {
  const consumer = new Consumer({
    clientId: options.clientId,
    groupId: options.group,
    // Used for the first join only. If another process has joined with this id in the meantime, rejoining
    // with it would evict that process.
    ...(options.place !== undefined && { groupInstanceId: options.place }),
    bootstrapBrokers: [...options.brokers],
    ...options.security,
    autocommit: false,
    // With retries, the client would rejoin after a commit that is too late, and then move the group's offset back.
    retries: 0,
    ...CONNECTION,
    sessionTimeout: SESSION_TIMEOUT_MS,
    rebalanceTimeout: REBALANCE_TIMEOUT_MS,
    heartbeatInterval: HEARTBEAT_MS,
    heartbeatStallTimeout: STALL_TIMEOUT_MS,
  })
  consumer.topics.trackAll(...options.topics)
  return consumer
}

function disconnect(connections: ConnectionPool): void {
  for (const [, connection] of connections) connection.socket?.destroy()
}

/** An event that is missing from the client's types. The client emits it when it fails to rejoin. */
interface ErrorSource {
  on(event: 'error', listener: (error: unknown) => void): void
}

const canJoinLater = (error: unknown) =>
  needsRejoin(error) || isKafkaError(error, ...COORDINATOR_ERRORS)

function follows(
  before: ConsumerGroupJoinPayload | undefined,
  now: ConsumerGroupJoinPayload,
): boolean {
  const generations = (now.generationId ?? 0) - (before?.generationId ?? 0)
  return before?.memberId === now.memberId && generations <= 1
}

function toOffset({ partition: { topic, partition }, offset }: Committable) {
  return { topic, partition, offset, leaderEpoch: -1 }
}
