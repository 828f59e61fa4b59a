import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openSpan, type Span, type Timed } from './quiet-seconds.ts'

/** An operation starts every 100 ms. It takes 5 ms, or 50 ms in a second in which the host steals a tenth. */
function measure(span: Span, noisySeconds: readonly number[]) {
  let nowMs = 5_000
  let stolenMs = 70
  const host = { nowMs: () => nowMs, stolenMs: () => stolenMs, processors: 2 }
  const open = openSpan(span, host)
  const all: Timed[] = []
  while (!open.isOver()) {
    const isNoisy = noisySeconds.includes(Math.floor(nowMs / 1_000) - 5)
    all.push({ startedMs: nowMs, tookMs: isNoisy ? 50 : 5 })
    if (isNoisy) stolenMs += 20
    nowMs += 100
  }
  return open.quietest(all)
}

test('if the host steals nothing, the first seconds count', () => {
  const { tookMs, lastedSeconds, stolenShare } = measure({ seconds: 3, maxSeconds: 9 }, [])
  assert.deepEqual(tookMs, Array(30).fill(5))
  assert.equal(lastedSeconds, 3)
  assert.equal(stolenShare, 0)
})

test('goes on until enough seconds were quiet, and counts the operations that started in them', () => {
  const { tookMs, lastedSeconds, stolenShare } = measure({ seconds: 3, maxSeconds: 9 }, [0, 2, 3])
  assert.deepEqual(tookMs, Array(30).fill(5))
  assert.equal(lastedSeconds, 6)
  assert.equal(stolenShare, 0)
})

test('ends at the limit if too few seconds were quiet, and counts the quietest', () => {
  const noisy = [0, 2, 3, 4, 5, 6]
  const { tookMs, lastedSeconds, stolenShare } = measure({ seconds: 3, maxSeconds: 5 }, noisy)
  assert.equal(lastedSeconds, 5)
  assert.deepEqual([...tookMs].sort(), [...Array(10).fill(5), ...Array(20).fill(50)])
  assert.ok(Math.abs(stolenShare - 0.2 / 3) < 1e-9)
})

test('all seconds count if the measurement must not take longer', () => {
  const { tookMs, lastedSeconds } = measure({ seconds: 3 }, [1])
  assert.equal(lastedSeconds, 3)
  assert.equal(tookMs.filter((ms) => ms === 50).length, 10)
  assert.equal(tookMs.length, 30)
})
