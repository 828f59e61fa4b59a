import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sumsOf } from './reported-balances.ts'

const has = (sums: bigint, sum: number) => ((sums >> BigInt(sum)) & 1n) === 1n

test('finds the sums of all subsets, and no others', () => {
  const sums = sumsOf([2n, 7n, 30n])
  const expected = new Set([0, 2, 7, 9, 30, 32, 37, 39])
  for (let sum = 0; sum <= 40; sum += 1) assert.equal(has(sums, sum), expected.has(sum), `${sum}`)
})

test('is fast for a customer with many unbooked deposits', { timeout: 5_000 }, () => {
  const parts = Array.from({ length: 60 }, (_, n) => BigInt(6_500 + 997 * n))
  assert.ok(has(sumsOf(parts), 6_500 + (6_500 + 997)))
})
