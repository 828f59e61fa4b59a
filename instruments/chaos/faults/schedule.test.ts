import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DISK, drawSchedule, nameOf, type Planned } from './schedule.ts'

const SEEDS = Array.from({ length: 50 }, (_, index) => index + 1)
const MINUTE_MS = 60_000

const draw = (seed: number, lengthMs = 10 * MINUTE_MS, withDisk = true) =>
  drawSchedule({ seed, lengthMs, withDisk })
const endOf = ({ afterMs, forMs }: Planned) => afterMs + forMs

test('the same seed draws the same schedule, and another seed draws another', () => {
  assert.deepEqual(draw(7), draw(7))
  assert.notDeepEqual(draw(7), draw(8))
})

test('every fault is repaired before the end, with time to recover', () => {
  for (const seed of SEEDS) {
    for (const lengthMs of [MINUTE_MS / 2, MINUTE_MS, 3 * MINUTE_MS]) {
      const planned = draw(seed, lengthMs)
      assert.ok(planned.length > 0)
      for (const one of planned) {
        assert.ok(one.forMs > 0)
        const recoveryMs = one.fault.target === 'Kafka' ? 12_000 : 4_000
        assert.ok(endOf(one) <= lengthMs - recoveryMs, `${nameOf(one.fault)} of seed ${seed}`)
      }
    }
  }
})

test('no target has two faults at once', () => {
  for (const seed of SEEDS) {
    for (const own of Map.groupBy(draw(seed), ({ fault }) => fault.target).values()) {
      for (const [index, next] of own.slice(1).entries()) {
        assert.ok(endOf(own[index]!) < next.afterMs, `${next.fault.target} of seed ${seed}`)
      }
    }
  }
})

test('three minutes have every kind of fault', () => {
  const kinds = [
    ...['cut', 'disk full', 'freeze', 'freeze in transaction', 'half-open', 'kill', 'latency'],
    ...['reset', 'slow', 'stall', 'wrong clock'],
  ]
  for (const seed of SEEDS) {
    const drawn = new Set(draw(seed, 3 * MINUTE_MS).map(({ fault }) => nameOf(fault)))
    assert.deepEqual([...drawn].sort(), kinds)
  }
})

test('replicas are frozen in transactions for shorter and for longer than the session time-out', () => {
  for (const seed of SEEDS) {
    const drawn = draw(seed).filter(({ fault }) => fault.kind === 'freeze in transaction')
    const isLong = ({ fault }: Planned) =>
      fault.kind === 'freeze in transaction' && fault.outlastsSession
    assert.ok(drawn.some((one) => isLong(one)) && drawn.some((one) => !isLong(one)), `seed ${seed}`)
    for (const one of drawn) assert.equal(isLong(one), one.forMs > 10_000)
  }
})

test('clocks are ahead and behind', () => {
  const clocks = SEEDS.flatMap((seed) => draw(seed)).flatMap(({ fault }) =>
    fault.kind === 'wrong clock' ? [fault.offsetMs] : [],
  )
  assert.ok(clocks.some((offsetMs) => offsetMs > 0) && clocks.some((offsetMs) => offsetMs < 0))
})

test('several faults overlap, and at times there is no fault', () => {
  for (const seed of SEEDS) {
    const planned = draw(seed)
    const faultsAt = (timeMs: number) =>
      planned.filter((one) => one.afterMs <= timeMs && timeMs < endOf(one)).length
    const counts = Array.from({ length: 600 }, (_, second) => faultsAt(second * 1_000))
    assert.ok(Math.max(...counts) >= 3, `seed ${seed}`)
    assert.ok(counts.filter((count) => count === 0).length >= 5, `seed ${seed}`)
  }
})

test('without a small disk, no fault has it as its target', () => {
  for (const seed of SEEDS) {
    const targets = draw(seed, 3 * MINUTE_MS, false).map(({ fault }) => fault.target)
    assert.ok(!targets.includes(DISK))
  }
})
