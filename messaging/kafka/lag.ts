import { type Consumer, ListOffsetTimestamps } from '@platformatic/kafka'
import type { PartitionLag } from '../bus.ts'
import type { Partitions } from './partitions.ts'

/**
 * The broker is asked where the partitions end: what the last fetch said of it is old wherever a
 * batch is held and nothing is fetched, and there the lag grows.
 */
export async function lagOf(
  consumer: Consumer,
  topics: readonly string[],
  partitions: Partitions,
): Promise<PartitionLag[]> {
  const metadata = await consumer.metadata({ topics: [...topics] })
  const places = topics.flatMap((topic) =>
    Array.from({ length: metadata.topics.get(topic)!.partitionsCount }, (_, partition) => ({
      topic,
      partition,
    })),
  )
  const ends = await consumer.listOffsets({
    topics: [...topics],
    timestamp: ListOffsetTimestamps.LATEST,
  })
  // After the ends, so that what was settled meanwhile does not count as lag.
  const positions = partitions.positions()
  return places.map(({ topic, partition }) => {
    const own = positions.find((at) => at.topic === topic && at.partition === partition)
    const end = ends.get(topic)?.[partition]
    if (own === undefined || end === undefined) return { topic, partition, messages: undefined }
    return { topic, partition, messages: Math.max(0, Number(end - own.offset)) }
  })
}
