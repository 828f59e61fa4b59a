import assert from 'node:assert/strict'
import { test } from 'node:test'
import { percentile, spreadOf } from './statistics.ts'

test('the median of an odd number of values is the one in the middle', () => {
  assert.deepEqual(spreadOf([10, 2, 3]), { min: 2, median: 3, max: 10 })
})

test('the median of an even number of values lies between the two in the middle', () => {
  assert.deepEqual(spreadOf([8, 1, 2, 4]), { min: 1, median: 3, max: 8 })
})

test('a percentile is one of the values, and the given share of them does not exceed it', () => {
  const values = Array.from({ length: 200 }, (_, index) => 200 - index)
  assert.equal(percentile(values, 0.5), 100)
  assert.equal(percentile(values, 0.99), 198)
  assert.equal(percentile([7], 0.99), 7)
})

test('no values have no spread', () => {
  assert.throws(() => spreadOf([]), /one value/)
  assert.throws(() => percentile([], 0.5), /one value/)
})
