import type { Consumer, MessageToProduce, RecordsBatch } from '@platformatic/kafka'
import type { BusMessage, OutgoingMessage } from '../bus.ts'

/** A message as the Kafka client takes it, with its approximate size in a request. */
export interface Encoded {
  readonly message: MessageToProduce
  readonly bytes: number
}

/** By default a broker rejects more than 1,048,588 bytes for a partition in one request. */
const MAX_CHUNK_BYTES = 900_000
const MAX_CHUNK_MESSAGES = 1000
/** The largest value that any bus accepts. It leaves room for key and headers. */
const MAX_MESSAGE_BYTES = 1_000_000
/** Lengths, timestamps and other fields of a record, rounded up. */
const RECORD_OVERHEAD_BYTES = 40
const HEADER_OVERHEAD_BYTES = 8

/** Encodes a message. Throws if the client would misread it or the broker would reject it. */
export function encode({ topic, key, value, headers }: OutgoingMessage): Encoded {
  if (typeof key !== 'string') throw new Error(`a key on ${topic} is not a string`)
  // The client would turn any other type into a tombstone without an error.
  if (value !== null && !(value instanceof Uint8Array)) {
    throw new Error(`a value on ${topic} is neither bytes nor null`)
  }
  if (value !== null && value.byteLength > MAX_MESSAGE_BYTES) {
    throw new Error(`a message on ${topic} is larger than ${MAX_MESSAGE_BYTES} bytes`)
  }
  const keyBytes = Buffer.from(key)
  let bytes = keyBytes.length + (value?.byteLength ?? 0) + RECORD_OVERHEAD_BYTES
  const headerBytes = new Map<Buffer, Buffer>()
  for (const name in headers) {
    const header = bytesOfHeader(name, headers[name]!)
    headerBytes.set(header.name, header.value)
    bytes += header.name.length + header.value.length + HEADER_OVERHEAD_BYTES
  }
  const message = { topic, key: keyBytes, headers: headerBytes }
  if (value === null) return { message, bytes }
  const valueBytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  return { message: { ...message, value: valueBytes }, bytes }
}

interface HeaderBytes {
  readonly name: Buffer
  readonly text: string
  readonly value: Buffer
}

const cachedHeaders = new Map<string, HeaderBytes>()
const MAX_CACHED_HEADERS = 100

/** Consecutive messages have most headers in common, so the last encoded value of each name is cached. */
function bytesOfHeader(name: string, text: string): HeaderBytes {
  const last = cachedHeaders.get(name)
  if (last?.text === text) return last
  const header = { name: last?.name ?? Buffer.from(name), text, value: Buffer.from(text) }
  if (last !== undefined || cachedHeaders.size < MAX_CACHED_HEADERS) cachedHeaders.set(name, header)
  return header
}

/** Splits messages into requests, in order, each small enough for a broker with default limits. */
export function* chunksOf(messages: readonly Encoded[]): Generator<MessageToProduce[]> {
  let chunk: MessageToProduce[] = []
  let chunkBytes = 0
  for (const { message, bytes } of messages) {
    const isFull = chunk.length >= MAX_CHUNK_MESSAGES || chunkBytes + bytes > MAX_CHUNK_BYTES
    if (isFull && chunk.length > 0) {
      yield chunk
      chunk = []
      chunkBytes = 0
    }
    chunk.push(message)
    chunkBytes += bytes
  }
  if (chunk.length > 0) yield chunk
}

/** The messages that a fetch returned for one partition, and the offset of the next fetch. */
export interface Fetched {
  readonly messages: BusMessage[]
  readonly next: bigint
}

const IS_CONTROL = 0x20
const IS_TRANSACTIONAL = 0x10
const ABORT_MARKER = 0

export type FetchResponse = Awaited<ReturnType<Consumer['fetch']>>
type PartitionResponse = FetchResponse['responses'][number]['partitions'][number]

/**
 * Decodes the messages of a partition, starting at offset `from`. A broker returns whole batches as they were
 * written, so the first batch can begin before that offset. Control batches of transactions and records of
 * aborted transactions contain no messages, but the next offset moves past them.
 */
export function decode(
  place: Pick<BusMessage, 'topic' | 'partition'> & { readonly topicId: string },
  from: bigint,
  response: Pick<PartitionResponse, 'records' | 'abortedTransactions'>,
): Fetched {
  const messages: BusMessage[] = []
  const aborted = new Set<bigint>()
  const toAbort = [...(response.abortedTransactions ?? [])].sort((a, b) =>
    a.firstOffset < b.firstOffset ? -1 : 1,
  )
  let next = from
  for (const batch of response.records ?? []) {
    const lastOffset = batch.firstOffset + BigInt(batch.lastOffsetDelta)
    if (lastOffset >= next) next = lastOffset + 1n
    while (toAbort[0] !== undefined && toAbort[0].firstOffset <= lastOffset) {
      aborted.add(toAbort.shift()!.producerId)
    }
    if (batch.attributes & IS_CONTROL) {
      if (isAbortMarker(batch)) aborted.delete(batch.producerId)
      continue
    }
    if (batch.attributes & IS_TRANSACTIONAL && aborted.has(batch.producerId)) continue
    for (const { offsetDelta, key, value, headers } of batch.records) {
      const offset = batch.firstOffset + BigInt(offsetDelta)
      if (offset < from) continue
      messages.push({
        ...place,
        offset,
        key: key && textOf(key),
        value,
        headers: headersOf(headers),
      })
    }
  }
  return { messages, next }
}

/** The key of a control record has two bytes of version and two bytes of type. */
function isAbortMarker({ records }: RecordsBatch): boolean {
  return records[0]?.key?.readInt16BE(2) === ABORT_MARKER
}

/** If several headers have the same name, the last one counts. */
function headersOf(pairs: readonly [Buffer | null, Buffer | null][]): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const [name, text] of pairs)
    if (name !== null) headers[textOf(name)] = text ? textOf(text) : ''
  return headers
}

const textOf = (bytes: Buffer) => bytes.toString('utf8')
