import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createClock } from '../../tests/support/harness.ts'
import { createLog } from '../telemetry/telemetry.ts'
import { periodically } from './periodically.ts'
import { until } from './until.ts'

const log = createLog('silent', 'test')

test('periodic work runs at once, and again a fixed time after the end of each run', async () => {
  const clock = createClock({ frozen: true })
  let runs = 0
  const loop = periodically(1_000, clock.runtime, log, async () => {
    runs += 1
  })
  await until(() => runs === 1)
  for (const wanted of [2, 3]) {
    clock.advance(999)
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(runs, wanted - 1)
    clock.advance(1)
    await until(() => runs === wanted)
  }
  await loop.close()
})

test('periodic work continues after a failure, which is logged', async () => {
  const clock = createClock({ frozen: true })
  const lines: string[] = []
  const loud = createLog('warn', 'test', { write: (line) => lines.push(line) })
  let runs = 0
  const loop = periodically(1_000, clock.runtime, loud, async () => {
    runs += 1
    if (runs === 1) throw new Error('not today')
  })
  await until(() => lines.length === 1)
  assert.match(lines[0]!, /not today/)
  await until(() => {
    clock.advance(1_000)
    return runs === 2
  })
  await loop.close()
})

test('closing periodic work waits for the current run and starts no other', async () => {
  const clock = createClock({ frozen: true })
  let finish = () => {}
  let runs = 0
  const loop = periodically(1, clock.runtime, log, () => {
    runs += 1
    return new Promise((resolve) => {
      finish = resolve
    })
  })
  let closed = false
  const closing = loop.close().then(() => {
    closed = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(closed, false)
  finish()
  await closing
  clock.advance(60_000)
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(runs, 1)
})
