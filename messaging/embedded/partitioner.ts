const encoder = new TextEncoder()

/**
 * The partition of a key, as the Java client of Apache Kafka chooses it: murmur2 of the UTF-8 bytes. Messages with
 * the same key therefore share a partition, whichever client sent them. Source: `BuiltInPartitioner`.
 */
export function partitionOf(key: string, partitions: number): number {
  return (murmur2(encoder.encode(key)) & 0x7fffffff) % partitions
}

const SEED = 0x9747b28c
const MIX = 0x5bd1e995

/** Kafka's murmur2. Returns a signed 32-bit integer. Source: `org.apache.kafka.common.utils.Utils`. */
export function murmur2(bytes: Uint8Array): number {
  const { length } = bytes
  const tail = length & ~3
  let hash = SEED ^ length
  for (let at = 0; at < tail; at += 4) {
    let word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    word = Math.imul(word, MIX)
    word ^= word >>> 24
    hash = Math.imul(hash, MIX) ^ Math.imul(word, MIX)
  }
  if (tail < length) {
    for (let at = length - 1; at >= tail; at -= 1) hash ^= bytes[at]! << (8 * (at - tail))
    hash = Math.imul(hash, MIX)
  }
  hash = Math.imul(hash ^ (hash >>> 13), MIX)
  return hash ^ (hash >>> 15)
}
