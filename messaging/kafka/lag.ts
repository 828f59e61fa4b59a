import { type Consumer, ListOffsetTimestamps } from '@platformatic/kafka'
import type { PartitionLag } from '../bus.ts'
import type { Partitions } from './partitions.ts'

/**
 * Requests the ends of the partitions from the broker. A partition is not fetched while its batch is held, so
 * the end that its last fetch reported is out of date, and these are the partitions whose lag grows.
 */
export async function lagOf(
  consumer: Consumer,
  topics: readonly string[],
  partitions: Partitions,
): Promise<PartitionLag[]> {
  const metadata = await consumer.metadata({ topics: [...topics] })
  const all = topics.flatMap((topic) =>
    Array.from({ length: metadata.topics.get(topic)!.partitionsCount }, (_, partition) => ({
      topic,
      partition,
    })),
  )
  const ends = await consumer.listOffsets({
    topics: [...topics],
    timestamp: ListOffsetTimestamps.LATEST,
  })
  // Read after the ends, so that messages settled during the request do not count as lag.
  const positions = partitions.positions()
  return all.map(({ topic, partition }) => {
    const own = positions.find((at) => at.topic === topic && at.partition === partition)
    const end = ends.get(topic)?.[partition]
    if (own === undefined || end === undefined) return { topic, partition, messages: undefined }
    return { topic, partition, messages: Math.max(0, Number(end - own.offset)) }
  })
}
