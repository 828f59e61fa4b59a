import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BusMessage } from '../bus.ts'
import { createPartitions, type Partitions } from './partitions.ts'

const messages = (count: number): BusMessage[] =>
  Array.from({ length: count }, (_, n) => ({
    topic: 't',
    partition: 0,
    offset: BigInt(n),
    key: 'k',
    value: null,
    headers: {},
  }))

/** A member that owns partitions of `t` with this many fetched messages in each. */
function owning(...counts: number[]) {
  const partitions = createPartitions()
  partitions.assign([{ topic: 't', partitions: [...counts.keys()] }])
  for (const one of partitions.idle()) one.fetched = messages(counts[one.partition]!)
  return partitions
}

const NOW = 1_000
const sizes = (batches: { messages: readonly unknown[] }[]) => batches.map((b) => b.messages.length)

test('takes evenly from all partitions that have messages, up to the limit', () => {
  const partitions = owning(30, 0, 30, 5)
  assert.deepEqual(sizes(partitions.take(30, NOW)), [10, 10, 5])
  assert.deepEqual(partitions.take(30, NOW), [])
})

test('takes at least one message of each partition, even with a smaller limit', () => {
  assert.deepEqual(sizes(owning(3, 3, 3).take(2, NOW)), [1, 1, 1])
})

test('continues after a settled batch, and takes a released one again', () => {
  const partitions = owning(5)
  const first = partitions.take(2, NOW)
  partitions.settle(first)
  const second = partitions.take(2, NOW)
  partitions.release(second)
  const offsets = partitions.take(10, NOW).flatMap((batch) => batch.messages.map((m) => m.offset))
  assert.deepEqual(offsets, [2n, 3n, 4n])
})

const offsetsOf = (partitions: Partitions) =>
  partitions.uncommitted().map(({ partition, offset }) => [partition.partition, offset])

test('keeps the batch of a partition that stays through a rebalance', () => {
  const partitions = owning(1, 1)
  const held = partitions.take(10, NOW)
  partitions.assign([{ topic: 't', partitions: [0] }])
  partitions.settle(held)
  assert.deepEqual(offsetsOf(partitions), [[0, 1n]])
})

test('offsets are uncommitted from the settling of a batch to its commit', () => {
  const partitions = owning(5, 1)
  partitions.settle(partitions.take(4, NOW))
  const first = partitions.uncommitted()
  assert.deepEqual(offsetsOf(partitions), [
    [0, 2n],
    [1, 1n],
  ])
  partitions.settle(partitions.take(1, NOW))
  partitions.committed(first)
  assert.deepEqual(offsetsOf(partitions), [[0, 3n]])
  partitions.committed(partitions.uncommitted())
  assert.deepEqual(offsetsOf(partitions), [])
})

test('drops the batch of a partition that was lost and assigned again', () => {
  const partitions = owning(1)
  const held = partitions.take(10, NOW)
  partitions.assign([])
  partitions.assign([{ topic: 't', partitions: [0] }])
  partitions.settle(held)
  assert.deepEqual(offsetsOf(partitions), [])
  partitions.release(held)
  assert.deepEqual(partitions.take(10, NOW), [])
  assert.equal(partitions.idle()[0]!.next, undefined)
})

test('a partition is idle while it is not being fetched and has no fetched or taken messages', () => {
  const partitions = owning(0, 1, 1)
  partitions.take(1, NOW)
  assert.deepEqual(
    partitions.idle().map(({ partition }) => partition),
    [0],
  )
  partitions.idle()[0]!.isFetching = true
  assert.deepEqual(partitions.idle(), [])
})

test('reports an overdue batch once', () => {
  const partitions = owning(1)
  const held = partitions.take(1, NOW)
  assert.deepEqual(partitions.overdue(NOW), [])
  assert.deepEqual(partitions.overdue(NOW + 1), held)
  assert.deepEqual(partitions.overdue(NOW + 1), [])
})

test('the position is the first message that is not settled, taken or fetched', () => {
  const partitions = owning(5, 0)
  const [empty] = partitions.idle()
  empty!.next = 7n
  const standing = () => partitions.positions().map(({ offset }) => offset)
  assert.deepEqual(standing(), [0n, 7n])
  const held = partitions.take(2, NOW)
  assert.deepEqual(standing(), [0n, 7n])
  partitions.settle(held)
  assert.deepEqual(standing(), [2n, 7n])
})

test('the position of a newly assigned partition is unknown', () => {
  assert.deepEqual(owning(0).positions(), [])
})
