import { ConnectionPool, Consumer, type ConsumerGroupJoinPayload } from '@platformatic/kafka'
import { inTurn } from '../../platform/async/coalesce.ts'
import { type Log, type Runtime, WOKEN } from '../../platform/async/runtime.ts'
import type { Batch, PartitionLag } from '../bus.ts'
import { isKafkaError, isUnavailable, needsRejoin, within } from './faults.ts'
import { createFetcher } from './fetcher.ts'
import { lagOf } from './lag.ts'
import { type Committable, createPartitions, type Partitions } from './partitions.ts'

/**
 * One membership of a consumer group, from joining to leaving. The client keeps it alive and follows
 * rebalances by itself; what it cannot overcome ends the membership, and a new one has to be made.
 */
export interface Member {
  join(): Promise<void>
  /** Why this membership is over; undefined as long as it is not. */
  failure(): unknown
  /** Takes what was fetched, if anything was. */
  take(): Batch[]
  /** Resolves when there may be something to take, or something else has changed. */
  poll(): Promise<void>
  commit(batches: readonly Batch[]): Promise<void>
  release(batches: readonly Batch[]): void
  lag(): Promise<PartitionLag[]>
  close(): Promise<void>
}

export interface MemberOptions {
  readonly brokers: readonly string[]
  readonly clientId: string
  readonly group: string
  readonly topics: readonly string[]
  /**
   * Where this process runs. A new member takes over from the one at the same place, whose process is gone, in place
   * of waiting for its session to expire.
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
/** Longer than a request may take, so that by then it is known why there is no heartbeat. */
const STALL_TIMEOUT_MS = 30_000
const CONNECTION = { connectTimeout: 3_000, requestTimeout: REQUEST_TIMEOUT_MS }
const CLOSE_LIMIT_MS = 5_000
const JOIN_TRIES = 20
const JOIN_PAUSE_MS = 200
/** The broker that cares for the group is about to: as with the first group ever, or after a start. */
const COORDINATOR_ERRORS = [
  'COORDINATOR_NOT_AVAILABLE',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'NOT_COORDINATOR',
]
const COMMIT_TRIES = 5
/** So long offsets gather before they are committed; a crash has as much delivered again. */
const GATHER_MS = 50
/** Nothing ends a handler that is stuck, so at least somebody should hear of it. */
const OVERDUE_MS = 60_000
const LOOK_AGAIN_MS = 5_000

export function createMember(options: MemberOptions): Member {
  const { topics, runtime, log } = options
  const consumer = createConsumer(options)
  const fetching = new ConnectionPool(options.clientId, CONNECTION)
  const partitions = createPartitions()
  const wakers = new Set<() => void>()
  let joined: ConsumerGroupJoinPayload | undefined
  let failure: unknown
  let closed: Promise<void> | undefined

  const wake = () => {
    for (const waker of wakers) waker()
  }

  function fail(error: unknown): void {
    failure ??= error
    partitions.clear()
    wake()
  }

  /** Resolves at the next change, or when the work is done, or after so long. */
  async function orChange(limitMs: number, work: Promise<void>[] = []): Promise<void> {
    const change = Promise.withResolvers<void>()
    const nap = new AbortController()
    wakers.add(change.resolve)
    try {
      await Promise.race([...work, change.promise, runtime.sleep(limitMs, nap.signal)])
    } finally {
      wakers.delete(change.resolve)
      nap.abort(WOKEN)
    }
  }

  /** A rebalance may be overtaken by the next; then there is only to join again. */
  async function join(): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const takesOver = consumer.groupInstanceId !== null
      try {
        await consumer.joinGroup()
        // The group keeps its assignment, which lacks the partitions that were added while it had no leader.
        if (takesOver && joined?.isLeader) await consumer.joinGroup()
        return
      } catch (error) {
        // A live process claims the same place: both are members under ids of their own.
        if (isKafkaError(error, 'FENCED_INSTANCE_ID')) consumer.groupInstanceId = null
        if (closed || tries === JOIN_TRIES || !canJoinLater(error)) throw error
        await runtime.sleep(JOIN_PAUSE_MS)
      }
    }
  }

  consumer.on('consumer:group:join', (now) => {
    consumer.groupInstanceId = null
    // Between generations that do not follow each other, somebody else may have had the partitions.
    if (!follows(joined, now)) partitions.clear()
    joined = now
    if (failure === undefined && !closed) partitions.assign(now.assignments ?? [])
    wake()
  })
  consumer.on('consumer:heartbeat:stalled', ({ lastError }) => {
    // While the broker is away the client tries on, and is the quickest to come back.
    if (isUnavailable(lastError)) return
    fail(lastError ?? new Error('the heartbeats of a group member are not answered'))
  })
  // An unheard error would end the process.
  ;(consumer as ErrorSource).on('error', (error) => {
    if (needsRejoin(error)) void join().catch(fail)
    else fail(error)
  })

  const fetcher = createFetcher({
    ...{ consumer, topics, partitions, log, connections: fetching },
    onGrowth: () => {
      if (joined?.isLeader) void join().catch(fail)
    },
    onRemade: (topic) => fail(new Error(`the topic ${topic} was deleted and made again`)),
  })

  /** Waits for the group's next generation, but not for ever. */
  async function rejoined(past: ConsumerGroupJoinPayload | undefined): Promise<boolean> {
    const until = runtime.monotonic() + REBALANCE_TIMEOUT_MS
    while (joined === past && failure === undefined && !closed && runtime.monotonic() < until) {
      await orChange(until - runtime.monotonic())
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
    // The fetch under way ends with its connection.
    disconnect(fetching)
    if (await within(CLOSE_LIMIT_MS, runtime, consumer.close())) return
    // A frozen broker does not answer; without connections the client ends at once.
    disconnect(consumer.connections)
    await within(CLOSE_LIMIT_MS, runtime, consumer.close())
  }

  return {
    join,
    failure: () => failure,
    take: () => partitions.take(options.maxBatchMessages, runtime.monotonic()),
    async poll() {
      if (closed || failure !== undefined) return
      for (const { topic, partition } of partitions.overdue(runtime.monotonic() - OVERDUE_MS)) {
        log.error({ topic, partition }, 'a batch has been in hand for very long')
      }
      await orChange(LOOK_AGAIN_MS, [fetcher.fetch()])
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

interface CommitOptions extends Pick<MemberOptions, 'runtime'> {
  readonly consumer: Consumer
  readonly partitions: Partitions
}

interface Generations {
  current(): ConsumerGroupJoinPayload | undefined
  /** While the client joins again it is not known yet whose the partitions are. */
  isJoining(): boolean
  /** Waits for the one after this; false when it does not come. */
  rejoined(past: ConsumerGroupJoinPayload | undefined): Promise<boolean>
}

/**
 * Moves the group past all that is settled; in turn, so that no commit that is late moves it back. Nobody
 * waits for it, and one commit costs as much as one for many batches.
 */
function createCommit(
  { consumer, partitions, runtime }: CommitOptions,
  generations: Generations,
): () => Promise<void> {
  return inTurn(async () => {
    await runtime.sleep(GATHER_MS)
    for (let tries = 1; ; tries += 1) {
      if (generations.isJoining()) await generations.rejoined(generations.current())
      const offsets = partitions.uncommitted()
      if (offsets.length === 0) return
      const generation = generations.current()
      try {
        await consumer.commit({ offsets: offsets.map(toOffset) })
        partitions.committed(offsets)
        return
      } catch (error) {
        if (tries === COMMIT_TRIES || !needsRejoin(error)) throw error
        if (!(await generations.rejoined(generation))) throw error
      }
    }
  })
}

function createConsumer(options: MemberOptions): Consumer {
  const consumer = new Consumer({
    clientId: options.clientId,
    groupId: options.group,
    // Serves to join only: rejoining with it after another process took the place over would evict that one.
    ...(options.place !== undefined && { groupInstanceId: options.place }),
    bootstrapBrokers: [...options.brokers],
    autocommit: false,
    // With retries a commit that came too late would join again and move the group's offset back.
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

/** What the client's types leave out: it emits this when it could not join again. */
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
