import assert from 'node:assert/strict'
import { test } from 'node:test'
import { murmur2, partitionOf } from './partitioner.ts'

const hash = (key: string) => murmur2(new TextEncoder().encode(key))

test("hashes the vectors of Kafka's own test suite", () => {
  const vectors: [string, number][] = [
    ['21', -973932308],
    ['foobar', -790332482],
    ['a-little-bit-long-string', -985981536],
    ['a-little-bit-longer-string', -1486304829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
    ['abc', 479470107],
  ]
  for (const [key, expected] of vectors) assert.equal(hash(key), expected, key)
})

test('chooses the same valid partition each time, for keys of any script', () => {
  for (const key of ['', 'a', 'ключ', '鍵', '🗝️', 'x'.repeat(1001)]) {
    for (const partitions of [1, 2, 7, 12]) {
      const partition = partitionOf(key, partitions)
      assert.ok(Number.isInteger(partition) && partition >= 0 && partition < partitions)
      assert.equal(partitionOf(key, partitions), partition)
    }
  }
})

test('drops the sign bit rather than negating, as the Java client does', () => {
  assert.equal(partitionOf('21', 12), (-973932308 & 0x7fffffff) % 12)
})
