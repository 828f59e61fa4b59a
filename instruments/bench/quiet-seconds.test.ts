import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openSpan, type Span, type Timed } from './quiet-seconds.ts'

/** Something begins every 100 ms and takes 5 ms, or 50 in a second of which the host takes a tenth. */
function measure(span: Span, noisySeconds: readonly number[]) {
  let nowMs = 5_000
  let stolenMs = 70
  const host = { nowMs: () => nowMs, stolenMs: () => stolenMs, processors: 2 }
  const open = openSpan(span, host)
  const all: Timed[] = []
  while (!open.isOver()) {
    const isNoisy = noisySeconds.includes(Math.floor(nowMs / 1_000) - 5)
    all.push({ begunMs: nowMs, tookMs: isNoisy ? 50 : 5 })
    if (isNoisy) stolenMs += 20
    nowMs += 100
  }
  return open.quietest(all)
}

test('where the host takes nothing, the first seconds are all that count', () => {
  const { tookMs, lastedSeconds, stolenShare } = measure({ seconds: 3, mostSeconds: 9 }, [])
  assert.deepEqual(tookMs, Array(30).fill(5))
  assert.equal(lastedSeconds, 3)
  assert.equal(stolenShare, 0)
})

test('goes on until so many seconds were quiet, and counts what began in them', () => {
  const { tookMs, lastedSeconds, stolenShare } = measure({ seconds: 3, mostSeconds: 9 }, [0, 2, 3])
  assert.deepEqual(tookMs, Array(30).fill(5))
  assert.equal(lastedSeconds, 6)
  assert.equal(stolenShare, 0)
})

test('ends in time where too few are quiet, and counts those in which least was taken', () => {
  const noisy = [0, 2, 3, 4, 5, 6]
  const { tookMs, lastedSeconds, stolenShare } = measure({ seconds: 3, mostSeconds: 5 }, noisy)
  assert.equal(lastedSeconds, 5)
  assert.deepEqual([...tookMs].sort(), [...Array(10).fill(5), ...Array(20).fill(50)])
  assert.ok(Math.abs(stolenShare - 0.2 / 3) < 1e-9)
})

test('unless it may go on, all of its seconds count', () => {
  const { tookMs, lastedSeconds } = measure({ seconds: 3 }, [1])
  assert.equal(lastedSeconds, 3)
  assert.equal(tookMs.filter((ms) => ms === 50).length, 10)
  assert.equal(tookMs.length, 30)
})
