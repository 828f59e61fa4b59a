import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createWorkload, type Work } from './workload.ts'

/** A server that finishes work in order at a fixed rate, in virtual time, while work arrives at another rate. */
function simulate(max?: number) {
  let nowMs = 1_000
  const workload = createWorkload(() => nowMs, max)
  const queue: { work: Work; beganMs: number }[] = []
  let capacity = 0
  let arrivals = 0
  return {
    workload,
    queue,
    pass(ms: number) {
      nowMs += ms
    },
    /**
     * Advances the time in steps of 10 ms. Returns how much work was rejected, and how long the finished work
     * took.
     */
    run(load: { perSecond: number; capacity: number; seconds: number }) {
      const tookMs: number[] = []
      let rejected = 0
      for (let step = 0; step < load.seconds * 100; step += 1) {
        nowMs += 10
        for (arrivals += load.perSecond / 100; arrivals >= 1; arrivals -= 1) {
          if (workload.hasRoom()) queue.push({ work: workload.begin(), beganMs: nowMs })
          else rejected += 1
        }
        for (capacity += load.capacity / 100; capacity >= 1; capacity -= 1) {
          const done = queue.shift()
          done?.work.end('done')
          if (done) tookMs.push(nowMs - done.beganMs)
        }
      }
      return { rejected, tookMs, served: tookMs.length / load.seconds }
    },
  }
}

describe('a workload', () => {
  test('that finishes in time is never rejected', () => {
    const server = simulate()
    assert.equal(server.run({ perSecond: 990, capacity: 1_000, seconds: 30 }).rejected, 0)
  })

  test('admits a burst while its rate is unknown', () => {
    const { workload } = simulate()
    for (let n = 0; n < 500; n += 1) {
      assert.ok(workload.hasRoom())
      workload.begin()
    }
  })

  for (const capacity of [300, 3_000]) {
    for (const times of [2, 4]) {
      test(`at ${times} times a capacity of ${capacity}/s finishes at capacity, and soon`, () => {
        const server = simulate()
        server.run({ perSecond: times * capacity, capacity, seconds: 5 })
        const { served, tookMs } = server.run({
          perSecond: times * capacity,
          capacity,
          seconds: 10,
        })
        assert.ok(served >= 0.98 * capacity, `${served} of ${capacity} per second`)
        assert.ok(Math.max(...tookMs) <= 400, `${Math.max(...tookMs)} ms`)
      })
    }
  }

  test('stops rejecting once less work arrives than finishes', () => {
    const server = simulate()
    server.run({ perSecond: 4_000, capacity: 1_000, seconds: 5 })
    server.run({ perSecond: 500, capacity: 1_000, seconds: 1 })
    assert.equal(server.run({ perSecond: 500, capacity: 1_000, seconds: 10 }).rejected, 0)
  })

  test('that is stuck rejects new work, and recovers when work finishes again', () => {
    const server = simulate()
    server.run({ perSecond: 500, capacity: 1_000, seconds: 2 })
    assert.ok(server.run({ perSecond: 500, capacity: 0, seconds: 5 }).rejected > 1_500)
    server.run({ perSecond: 500, capacity: 1_000, seconds: 3 })
    assert.equal(server.run({ perSecond: 500, capacity: 1_000, seconds: 10 }).rejected, 0)
  })

  test('that is stuck rejects new work even if little is in flight', () => {
    const { workload, pass } = simulate()
    for (let n = 0; n < 64; n += 1) workload.begin()
    pass(400)
    assert.ok(workload.hasRoom())
    pass(200)
    assert.equal(workload.hasRoom(), false)
  })

  test('admits a burst again once nothing has been rejected for a second', () => {
    const { workload, run, queue } = simulate()
    const burst = () => Array.from({ length: 500 }, () => workload.hasRoom() && workload.begin())
    run({ perSecond: 4_000, capacity: 1_000, seconds: 5 })
    for (const { work } of queue.splice(0)) work.end('done')
    const first = burst()
    assert.ok(first.includes(false))
    for (const work of first) if (work) work.end('done')
    run({ perSecond: 100, capacity: 1_000, seconds: 2 })
    assert.ok(!burst().includes(false))
  })

  test('does not count abandoned work toward its rate', () => {
    const { workload, pass } = simulate()
    const works = Array.from({ length: 600 }, () => workload.begin())
    pass(1_200)
    assert.equal(workload.hasRoom(), false)
    for (const work of works.slice(0, 530)) work.end('abandoned')
    assert.equal(workload.hasRoom(), false)
    for (const work of works.slice(530)) work.end('done')
    assert.ok(workload.hasRoom())
  })

  test('with a maximum is limited only by the number of pieces in flight', () => {
    const server = simulate(100)
    const { rejected } = server.run({ perSecond: 50, capacity: 0, seconds: 10 })
    assert.equal(rejected, 400)
  })

  test('counts work that ends twice, or is abandoned, once', () => {
    const { workload } = simulate(1)
    const work = workload.begin()
    assert.equal(workload.hasRoom(), false)
    work.end('abandoned')
    work.end('done')
    assert.ok(workload.hasRoom())
    workload.begin()
    assert.equal(workload.hasRoom(), false)
  })
})
