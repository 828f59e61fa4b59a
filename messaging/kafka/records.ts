import type { Consumer, MessageToProduce, RecordsBatch } from '@platformatic/kafka'
import type { BusMessage, OutgoingMessage } from '../bus.ts'

/** A message as it goes to the client, with about the bytes that it takes in a request. */
export interface Encoded {
  readonly message: MessageToProduce
  readonly bytes: number
}

/** Brokers refuse more than 1,048,588 bytes of a partition in one request, unless told otherwise. */
const MAX_CHUNK_BYTES = 900_000
const MAX_CHUNK_MESSAGES = 1000
/** The limit of a value, on every bus; it leaves room for key and headers. */
const MAX_MESSAGE_BYTES = 1_000_000
/** Lengths, timestamps and the like of a record, rounded up. */
const RECORD_OVERHEAD_BYTES = 40
const HEADER_OVERHEAD_BYTES = 8

/** Throws on what the client would misread or the broker refuse. */
export function encode({ topic, key, value, headers }: OutgoingMessage): Encoded {
  if (typeof key !== 'string') throw new Error(`a key on ${topic} is no string`)
  // Anything but bytes and null would silently become a tombstone.
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

const lastOfName = new Map<string, HeaderBytes>()
const MAX_KNOWN_NAMES = 100

/** The messages of a batch have most headers in common: what the last one had is not encoded again. */
function bytesOfHeader(name: string, text: string): HeaderBytes {
  const last = lastOfName.get(name)
  if (last?.text === text) return last
  const header = { name: last?.name ?? Buffer.from(name), text, value: Buffer.from(text) }
  if (last !== undefined || lastOfName.size < MAX_KNOWN_NAMES) lastOfName.set(name, header)
  return header
}

/** Cuts messages into requests, in order; none is so large that a broker with defaults refuses it. */
export function* chunksOf(messages: readonly Encoded[]): Generator<MessageToProduce[]> {
  let chunk: MessageToProduce[] = []
  let chunkBytes = 0
  for (const { message, bytes } of messages) {
    const full = chunk.length >= MAX_CHUNK_MESSAGES || chunkBytes + bytes > MAX_CHUNK_BYTES
    if (full && chunk.length > 0) {
      yield chunk
      chunk = []
      chunkBytes = 0
    }
    chunk.push(message)
    chunkBytes += bytes
  }
  if (chunk.length > 0) yield chunk
}

/** What a fetch brought of one partition, and the offset to go on from. */
export interface Fetched {
  readonly messages: BusMessage[]
  readonly next: bigint
}

const IS_CONTROL = 0x20
const IS_TRANSACTIONAL = 0x10
const ABORT_MARKER = 0

/** What a broker answers to a fetch. */
export type FetchResponse = Awaited<ReturnType<Consumer['fetch']>>
type Answer = FetchResponse['responses'][number]['partitions'][number]

/**
 * Reads the messages from an offset on. A broker answers with whole batches as they were written, so
 * the first may begin before that offset; batches that control transactions, and what an aborted
 * transaction wrote, are no messages, but the offset moves past them.
 */
export function decode(
  place: Pick<BusMessage, 'topic' | 'partition'> & { readonly topicId: string },
  from: bigint,
  answer: Pick<Answer, 'records' | 'abortedTransactions'>,
): Fetched {
  const messages: BusMessage[] = []
  const aborted = new Set<bigint>()
  const toAbort = [...(answer.abortedTransactions ?? [])].sort((a, b) =>
    a.firstOffset < b.firstOffset ? -1 : 1,
  )
  let next = from
  for (const batch of answer.records ?? []) {
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

/** The key of a control record: two bytes of version, two of type. */
function isAbortMarker({ records }: RecordsBatch): boolean {
  return records[0]?.key?.readInt16BE(2) === ABORT_MARKER
}

/** Of several headers with one name the last counts. */
function headersOf(pairs: readonly [Buffer | null, Buffer | null][]): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const [name, text] of pairs)
    if (name !== null) headers[textOf(name)] = text ? textOf(text) : ''
  return headers
}

const textOf = (bytes: Buffer) => bytes.toString('utf8')
