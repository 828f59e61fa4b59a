import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { OutgoingMessage } from '../bus.ts'
import { chunksOf, decode, encode } from './records.ts'

type Answer = Parameters<typeof decode>[2]
type Batch = NonNullable<Answer['records']>[number]

const at = { topic: 't', topicId: 'id', partition: 0 }
const TRANSACTIONAL = 0x10
const CONTROL = 0x20

const record = (offsetDelta: number, text: string) => ({
  length: 0,
  attributes: 0,
  timestampDelta: 0n,
  offsetDelta,
  key: null,
  value: Buffer.from(text),
  headers: [] as [Buffer | null, Buffer | null][],
})

/** A batch as a broker returns it: consecutive messages from `firstOffset` on. */
function batch(firstOffset: bigint, texts: readonly string[], more: Partial<Batch> = {}): Batch {
  return {
    firstOffset,
    length: 0,
    partitionLeaderEpoch: 0,
    magic: 2,
    crc: 0,
    attributes: 0,
    lastOffsetDelta: texts.length - 1,
    firstTimestamp: 0n,
    maxTimestamp: 0n,
    producerId: -1n,
    producerEpoch: -1,
    firstSequence: -1,
    records: texts.map((text, index) => record(index, text)),
    ...more,
  }
}

const COMMIT = Buffer.from([0, 0, 0, 1])
const ABORT = Buffer.from([0, 0, 0, 0])

function marker(firstOffset: bigint, producerId: bigint, key: Buffer): Batch {
  const attributes = CONTROL | TRANSACTIONAL
  return batch(firstOffset, [], {
    producerId,
    attributes,
    lastOffsetDelta: 0,
    records: [{ ...record(0, ''), key }],
  })
}

function read(from: bigint, records: Batch[], abortedTransactions: Answer['abortedTransactions']) {
  const { messages, next } = decode(at, from, { records, abortedTransactions })
  return { texts: messages.map(({ value }) => String(value)), next }
}

test('omits messages before the requested offset', () => {
  assert.deepEqual(read(11n, [batch(10n, ['a', 'b', 'c'])], null), { texts: ['b', 'c'], next: 13n })
})

test('keeps the offset when there are no records', () => {
  assert.deepEqual(read(5n, [], null), { texts: [], next: 5n })
})

test('moves past batches that compaction has emptied', () => {
  const emptied = batch(3n, ['a'], { lastOffsetDelta: 6, records: [record(2, 'kept')] })
  const { messages, next } = decode(at, 3n, { records: [emptied], abortedTransactions: null })
  assert.deepEqual(
    messages.map(({ offset }) => offset),
    [5n],
  )
  assert.equal(next, 10n)
})

test('omits the messages of an aborted transaction, and no others', () => {
  const of = (producerId: bigint) => ({ producerId, attributes: TRANSACTIONAL })
  const log = [
    batch(0n, ['aborted'], of(7n)),
    batch(1n, ['committed'], of(8n)),
    batch(2n, ['plain']),
    marker(3n, 7n, ABORT),
    marker(4n, 8n, COMMIT),
    batch(5n, ['second try'], of(7n)),
    marker(6n, 7n, COMMIT),
  ]
  const aborted = [{ producerId: 7n, firstOffset: 0n }]
  assert.deepEqual(read(0n, log, aborted), {
    texts: ['committed', 'plain', 'second try'],
    next: 7n,
  })
  // A response can end before the marker that commits or aborts the transaction.
  assert.deepEqual(read(0n, log.slice(0, 2), aborted), { texts: ['committed'], next: 2n })
})

test('decodes headers as text, takes the last one of a name, and null for a missing key', () => {
  const headers = [
    [Buffer.from('ключ'), Buffer.from('🗝️')],
    [Buffer.from('twice'), Buffer.from('1')],
    [Buffer.from('twice'), Buffer.from('2')],
    [Buffer.from('empty'), null],
  ] as [Buffer, Buffer | null][]
  const records = [batch(0n, [], { records: [{ ...record(0, 'v'), headers }] })]
  const { messages } = decode({ ...at, partition: 3 }, 0n, { records, abortedTransactions: null })
  assert.deepEqual(messages, [
    {
      topic: 't',
      topicId: 'id',
      partition: 3,
      offset: 0n,
      key: null,
      value: Buffer.from('v'),
      headers: { ключ: '🗝️', twice: '2', empty: '' },
    },
  ])
})

const outgoing = (bytes: number): OutgoingMessage => ({
  topic: 't',
  key: 'k',
  value: new Uint8Array(bytes),
  headers: {},
})

const chunkSizes = (messages: readonly OutgoingMessage[]) =>
  [...chunksOf(messages.map(encode))].map(({ length }) => length)

test('splits requests by number of messages and by bytes, and makes no empty request', () => {
  assert.deepEqual(chunkSizes([]), [])
  assert.deepEqual(chunkSizes(Array.from({ length: 2_500 }, () => outgoing(10))), [1000, 1000, 500])
  assert.deepEqual(chunkSizes([outgoing(950_000), outgoing(10), outgoing(890_000)]), [1, 2])
})

test('rejects messages that Kafka would reject or misread', () => {
  assert.throws(() => encode(outgoing(1_000_001)), /larger than/)
  assert.throws(() => encode({ ...outgoing(1), value: 'text' as never }), /neither bytes nor null/)
  assert.throws(() => encode({ ...outgoing(1), key: undefined as never }), /not a string/)
})

test('encodes a tombstone without a value, and an empty value as a value', () => {
  assert.equal(encode({ ...outgoing(0), value: null }).message.value, undefined)
  assert.deepEqual(encode(outgoing(0)).message.value, Buffer.alloc(0))
})
