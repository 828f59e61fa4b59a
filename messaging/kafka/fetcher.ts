import {
  type ClusterMetadata,
  type ConnectionPool,
  type Consumer,
  ListOffsetTimestamps,
} from '@platformatic/kafka'
import type { Log } from '../../platform/async/runtime.ts'
import { isKafkaError } from './faults.ts'
import type { OwnedPartition, Partitions } from './partitions.ts'
import { decode, type FetchResponse } from './records.ts'

/** Fills the idle partitions of a member from the log. */
export interface Fetcher {
  /** Resolves when a fetch has ended, with messages or without; rejects with faults of the broker. */
  fetch(): Promise<void>
}

export interface FetcherOptions {
  readonly consumer: Consumer
  /** Of fetches alone: what else the client asks would wait behind them on the same connection. */
  readonly connections: ConnectionPool
  readonly topics: readonly string[]
  readonly partitions: Partitions
  readonly log: Log
  /** A topic has more partitions than before. */
  readonly onGrowth: () => void
  /** A topic was deleted, and another one has its name now. */
  readonly onRemade: (topic: string) => void
}

/**
 * How long a broker that has nothing waits for something. A partition that becomes idle meanwhile, or
 * comes to this member, waits too, so it is less while some are in hand.
 */
const WAIT_MS = 1_000
const WAIT_BESIDE_BUSY_MS = 50
/** Unread messages in memory: at most so many bytes of each partition, or one batch as it was sent. */
const MAX_PARTITION_BYTES = 256 * 1024
const MAX_FETCH_BYTES = 8 * 1024 * 1024
const OFFSET_OUT_OF_RANGE = 1
/** The client drops a session that is out of step, and begins another with the next fetch. */
const SESSION_ERRORS = [
  'FETCH_SESSION_ID_NOT_FOUND',
  'INVALID_FETCH_SESSION_EPOCH',
  'FETCH_SESSION_TOPIC_ID_ERROR',
]

export function createFetcher(options: FetcherOptions): Fetcher {
  const { consumer, topics, partitions, log } = options
  const known = new Map<string, { id: string; partitions: number }>()
  /** By broker: one fetch at a time, over all partitions that it leads and that are idle. */
  const underWay = new Map<number, Promise<void>>()

  /** False when the topics are not what they were, and so the partitions neither. */
  function compare(metadata: ClusterMetadata): boolean {
    for (const topic of topics) {
      const { id, partitionsCount } = metadata.topics.get(topic)!
      const before = known.get(topic)
      known.set(topic, { id, partitions: partitionsCount })
      if (before !== undefined && before.id !== id) {
        options.onRemade(topic)
        return false
      }
      if (before !== undefined && before.partitions < partitionsCount) options.onGrowth()
    }
    return true
  }

  async function start(): Promise<void> {
    if (partitions.idle().length === 0) return
    const metadata = await consumer.metadata({ topics: [...topics] })
    if (!compare(metadata)) return
    await place(consumer, partitions)
    const leaders = Map.groupBy(
      partitions.idle().filter(({ next }) => next !== undefined),
      ({ topic, partition }) => metadata.topics.get(topic)?.partitions[partition]?.leader ?? -1,
    )
    for (const [leader, wanted] of leaders) {
      if (underWay.has(leader)) continue
      const fetch = fetchFrom(leader, wanted, metadata).finally(() => underWay.delete(leader))
      // Whoever waits for it sees its fault; when nobody does, the next fetch meets it again.
      fetch.catch(() => undefined)
      underWay.set(leader, fetch)
    }
  }

  async function fetchFrom(node: number, wanted: OwnedPartition[], metadata: ClusterMetadata) {
    const asked = new Map(wanted.map((one) => [one, one.next!]))
    const names = new Map([...metadata.topics].map(([name, { id }]) => [id, name]))
    const accept = (response: FetchResponse) => {
      for (const { topicId, partitions: answers } of response.responses) {
        for (const answer of answers) {
          const topic = names.get(topicId)
          const one = wanted.find((w) => w.topic === topic && w.partition === answer.partitionIndex)
          // It may have been lost since, and won back at another offset.
          if (one?.next === undefined || !partitions.owns(one)) continue
          const at = { topic: one.topic, topicId, partition: one.partition }
          if (one.next !== asked.get(one)) continue
          if (answer.errorCode === OFFSET_OUT_OF_RANGE) {
            log.warn({ ...at, offset: one.next }, 'an offset is not in the log any more')
            one.next = undefined
            one.isLost = true
          } else if (answer.errorCode === 0) {
            const { messages, next } = decode(at, one.next, answer)
            one.waiting = messages
            one.next = next
          }
        }
      }
    }
    for (const one of wanted) one.isFetching = true
    try {
      const request = requestOf(node, asked, metadata, partitions.isBusy())
      accept(await consumer.fetch({ ...request, connectionPool: options.connections }))
    } catch (error) {
      if (isKafkaError(error, ...SESSION_ERRORS)) return
      const { response } = error as { response?: FetchResponse }
      if (response === undefined) throw error
      // One partition's error does not hold up what came of the others.
      accept(response)
      const codes = response.responses.flatMap((topic) => topic.partitions.map((p) => p.errorCode))
      if (codes.some((code) => code !== 0 && code !== OFFSET_OUT_OF_RANGE)) throw error
    } finally {
      for (const one of wanted) one.isFetching = false
    }
  }

  return {
    async fetch() {
      await start()
      // Without any, the member waits until something changes.
      await Promise.race(underWay.size > 0 ? underWay.values() : [new Promise(() => undefined)])
    },
  }
}

function requestOf(
  node: number,
  asked: ReadonlyMap<OwnedPartition, bigint>,
  metadata: ClusterMetadata,
  isBusy: boolean,
) {
  const topics: Parameters<Consumer['fetch']>[0]['topics'] = []
  for (const [topic, positions] of Map.groupBy(asked, ([{ topic }]) => topic)) {
    const { id: topicId, partitions } = metadata.topics.get(topic)!
    const requests = positions.map(([{ partition }, fetchOffset]) => ({
      partition,
      currentLeaderEpoch: partitions[partition]!.leaderEpoch,
      fetchOffset,
      lastFetchedEpoch: -1,
      partitionMaxBytes: MAX_PARTITION_BYTES,
    }))
    topics.push({ topicId, partitions: requests })
  }
  const maxWaitTime = isBusy ? WAIT_BESIDE_BUSY_MS : WAIT_MS
  return { node, topics, minBytes: 1, maxBytes: MAX_FETCH_BYTES, maxWaitTime }
}

/**
 * Finds out where to begin in partitions that are new to the member: where the group stands, else
 * with the oldest message. So it is too when the group stands where there is no log any more, below
 * it or above: what is handled a second time changes nothing, what is left out is lost.
 */
async function place(consumer: Consumer, partitions: Partitions): Promise<void> {
  const unplaced = () => partitions.idle().filter(({ next }) => next === undefined)
  const fresh = unplaced().filter(({ isLost }) => !isLost)
  if (fresh.length > 0) {
    const topics = [...byTopic(fresh)].map(([topic, numbers]) => ({ topic, partitions: numbers }))
    const committed = await consumer.listCommittedOffsets({ topics })
    for (const one of fresh) {
      const offset = committed.get(one.topic)?.[one.partition] ?? -1n
      if (offset >= 0n) one.next ??= offset
    }
  }
  const rest = unplaced()
  if (rest.length === 0) return
  const numbers = byTopic(rest)
  const oldest = await consumer.listOffsets({
    topics: [...numbers.keys()],
    partitions: Object.fromEntries(numbers),
    timestamp: ListOffsetTimestamps.EARLIEST,
  })
  for (const one of rest) {
    one.next ??= oldest.get(one.topic)?.[one.partition]
    one.isLost = false
  }
}

function byTopic(partitions: readonly OwnedPartition[]): Map<string, number[]> {
  const numbers = new Map<string, number[]>()
  for (const [topic, list] of Map.groupBy(partitions, ({ topic }) => topic)) {
    numbers.set(
      topic,
      list.map(({ partition }) => partition),
    )
  }
  return numbers
}
