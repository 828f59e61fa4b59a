import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemRuntime } from './runtime.ts'
import { createWaiters } from './waiters.ts'

const LONG_MS = 60_000

test('all waits for a key get its value, and no other wait does', async () => {
  const waiters = createWaiters<string>(systemRuntime)
  const first = waiters.wait('a').within(LONG_MS)
  const second = waiters.wait('a').within(LONG_MS)
  const other = waiters.wait('b')
  const others = other.within(LONG_MS)
  waiters.resolve('a', 'done')
  assert.deepEqual(await Promise.all([first, second]), ['done', 'done'])
  other.cancel()
  assert.equal(await others, undefined)
})

test('a value that arrives between wait() and within() is not missed', async () => {
  const waiters = createWaiters<string>(systemRuntime)
  const waiter = waiters.wait('a')
  waiters.resolve('a', 'early')
  assert.equal(await waiter.within(0), 'early')
})

test('a wait that exceeds its limit resolves with undefined and is over', async () => {
  const waiters = createWaiters<string>(systemRuntime)
  const waiter = waiters.wait('a')
  assert.equal(await waiter.within(1), undefined)
  waiters.resolve('a', 'late')
  assert.equal(await waiter.within(0), undefined)
})

test('a value that arrives before a wait is lost', async () => {
  const waiters = createWaiters<string>(systemRuntime)
  waiters.resolve('a', 'early')
  assert.equal(await waiters.wait('a').within(1), undefined)
})

test('a canceled wait does not affect the others', async () => {
  const waiters = createWaiters<string>(systemRuntime)
  const patient = waiters.wait('a')
  const impatient = waiters.wait('a')
  impatient.cancel()
  impatient.cancel()
  waiters.resolve('a', 'done')
  assert.equal(await patient.within(LONG_MS), 'done')
})

test('a wait leaves no timer behind', async () => {
  const signals: AbortSignal[] = []
  const waiters = createWaiters<string>({
    ...systemRuntime,
    sleep(durationMs, signal) {
      if (signal) signals.push(signal)
      return systemRuntime.sleep(durationMs, signal)
    },
  })
  const waiting = waiters.wait('a').within(LONG_MS)
  waiters.resolve('a', 'done')
  await waiting
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [true],
  )
})
