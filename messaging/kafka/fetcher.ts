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

/** Fetches messages for the idle partitions of a group member. */
export interface Fetcher {
  /** Resolves when a fetch has ended, with or without messages. Rejects if the broker fails. */
  fetch(): Promise<void>
}

export interface FetcherOptions {
  readonly consumer: Consumer
  /** Connections for fetches only. On a shared connection, other requests would wait behind a fetch. */
  readonly connections: ConnectionPool
  readonly topics: readonly string[]
  readonly partitions: Partitions
  readonly log: Log
  /** Called when a topic has more partitions than before. */
  readonly onPartitionsAdded: () => void
  /** Called when a topic was deleted and recreated. */
  readonly onTopicRecreated: (topic: string) => void
}

/**
 * How long the broker waits for messages if there are none. A partition that becomes idle or is assigned during
 * that time has to wait for the next fetch, so the wait is short while batches are being handled.
 */
const WAIT_MS = 1_000
const WAIT_WHILE_BUSY_MS = 50
/** Bounds the fetched messages of a partition in memory. A single larger record batch is fetched all the same. */
const MAX_PARTITION_BYTES = 256 * 1024
const MAX_FETCH_BYTES = 8 * 1024 * 1024
const OFFSET_OUT_OF_RANGE = 1
/** After one of these errors the client drops its fetch session and starts a new one with the next fetch. */
const SESSION_ERRORS = [
  'FETCH_SESSION_ID_NOT_FOUND',
  'INVALID_FETCH_SESSION_EPOCH',
  'FETCH_SESSION_TOPIC_ID_ERROR',
]

export function createFetcher(options: FetcherOptions): Fetcher {
  const { consumer, topics, partitions, log } = options
  const known = new Map<string, { id: string; partitions: number }>()
  /** By broker: at most one fetch each, for all idle partitions that the broker leads. */
  const inFlight = new Map<number, Promise<void>>()

  /** Reports changed topics. Returns false if one was recreated, because its offsets are no longer valid. */
  function checkTopics(metadata: ClusterMetadata): boolean {
    for (const topic of topics) {
      const { id, partitionsCount } = metadata.topics.get(topic)!
      const before = known.get(topic)
      known.set(topic, { id, partitions: partitionsCount })
      if (before !== undefined && before.id !== id) {
        options.onTopicRecreated(topic)
        return false
      }
      if (before !== undefined && before.partitions < partitionsCount) options.onPartitionsAdded()
    }
    return true
  }

  async function start(): Promise<void> {
    if (partitions.idle().length === 0) return
    const metadata = await consumer.metadata({ topics: [...topics] })
    if (!checkTopics(metadata)) return
    await findStartOffsets(consumer, partitions)
    const leaders = Map.groupBy(
      partitions.idle().filter(({ next }) => next !== undefined),
      ({ topic, partition }) => metadata.topics.get(topic)?.partitions[partition]?.leader ?? -1,
    )
    for (const [leader, wanted] of leaders) {
      if (inFlight.has(leader)) continue
      const fetch = fetchFrom(leader, wanted, metadata).finally(() => inFlight.delete(leader))
      // The method `fetch` below rejects with this error. If no caller awaits it, the next fetch fails with
      // the same error.
      fetch.catch(() => undefined)
      inFlight.set(leader, fetch)
    }
  }

  async function fetchFrom(node: number, wanted: OwnedPartition[], metadata: ClusterMetadata) {
    const offsets = new Map(wanted.map((state) => [state, state.next!]))
    const names = new Map([...metadata.topics].map(([name, { id }]) => [id, name]))
    const accept = (response: FetchResponse) => {
      for (const { topicId, partitions: results } of response.responses) {
        for (const result of results) {
          const topic = names.get(topicId)
          const state = wanted.find(
            (w) => w.topic === topic && w.partition === result.partitionIndex,
          )
          // This member may have lost the partition during the fetch, and may own it again at another offset.
          if (state?.next === undefined || !partitions.owns(state)) continue
          const at = { topic: state.topic, topicId, partition: state.partition }
          if (state.next !== offsets.get(state)) continue
          if (result.errorCode === OFFSET_OUT_OF_RANGE) {
            log.warn({ ...at, offset: state.next }, 'an offset is no longer in the log')
            state.next = undefined
            state.isOutOfRange = true
          } else if (result.errorCode === 0) {
            const { messages, next } = decode(at, state.next, result)
            state.fetched = messages
            state.next = next
          }
        }
      }
    }
    for (const state of wanted) state.isFetching = true
    try {
      const request = requestOf(node, offsets, metadata, partitions.isBusy())
      accept(await consumer.fetch({ ...request, connectionPool: options.connections }))
    } catch (error) {
      if (isKafkaError(error, ...SESSION_ERRORS)) return
      const { response } = error as { response?: FetchResponse }
      if (response === undefined) throw error
      // An error of one partition does not discard the messages of the others.
      accept(response)
      const codes = response.responses.flatMap((topic) => topic.partitions.map((p) => p.errorCode))
      if (codes.some((code) => code !== 0 && code !== OFFSET_OUT_OF_RANGE)) throw error
    } finally {
      for (const state of wanted) state.isFetching = false
    }
  }

  return {
    async fetch() {
      await start()
      // If no fetch is in flight, this never resolves. The caller also waits for changes and for a time limit.
      await Promise.race(inFlight.size > 0 ? inFlight.values() : [new Promise(() => undefined)])
    },
  }
}

function requestOf(
  node: number,
  offsets: ReadonlyMap<OwnedPartition, bigint>,
  metadata: ClusterMetadata,
  isBusy: boolean,
) {
  const topics: Parameters<Consumer['fetch']>[0]['topics'] = []
  for (const [topic, positions] of Map.groupBy(offsets, ([{ topic }]) => topic)) {
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
  const maxWaitTime = isBusy ? WAIT_WHILE_BUSY_MS : WAIT_MS
  return { node, topics, minBytes: 1, maxBytes: MAX_FETCH_BYTES, maxWaitTime }
}

/**
 * Finds the start offset of partitions that are new to the member: the group's committed offset, or the oldest
 * message if there is none. The oldest message is also the start if the committed offset is out of range, below or
 * above the log: handling a message twice changes nothing, while a skipped message would be lost.
 */
async function findStartOffsets(consumer: Consumer, partitions: Partitions): Promise<void> {
  const withoutOffset = () => partitions.idle().filter(({ next }) => next === undefined)
  const fresh = withoutOffset().filter(({ isOutOfRange }) => !isOutOfRange)
  if (fresh.length > 0) {
    const topics = [...byTopic(fresh)].map(([topic, numbers]) => ({ topic, partitions: numbers }))
    const committed = await consumer.listCommittedOffsets({ topics })
    for (const state of fresh) {
      const offset = committed.get(state.topic)?.[state.partition] ?? -1n
      if (offset >= 0n) state.next ??= offset
    }
  }
  const rest = withoutOffset()
  if (rest.length === 0) return
  const numbers = byTopic(rest)
  const oldest = await consumer.listOffsets({
    topics: [...numbers.keys()],
    partitions: Object.fromEntries(numbers),
    timestamp: ListOffsetTimestamps.EARLIEST,
  })
  for (const state of rest) {
    state.next ??= oldest.get(state.topic)?.[state.partition]
    state.isOutOfRange = false
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
