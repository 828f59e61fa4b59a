import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Runtime, systemRuntime } from './runtime.ts'
import { createSignal } from './signal.ts'

/**
 * A runtime whose sleeps end only when their signal aborts or the test ends them. The requested durations are
 * recorded.
 */
function frozen() {
  const asked: number[] = []
  const ends: (() => void)[] = []
  const runtime: Runtime = {
    ...systemRuntime,
    sleep(durationMs, signal) {
      asked.push(durationMs)
      return new Promise((resolve) => {
        ends.push(resolve)
        signal?.addEventListener('abort', () => resolve())
      })
    },
  }
  return { runtime, asked, ends }
}

const isPending = async (promise: Promise<unknown>) => {
  const turn = new Promise((resolve) => setImmediate(resolve, 'pending'))
  return (await Promise.race([promise, turn])) === 'pending'
}

test('a signal that was raised before a wait ends that wait at once, and no later one', async () => {
  const { runtime, asked } = frozen()
  const signal = createSignal(runtime)
  signal.raise()
  signal.raise()
  assert.equal(await signal.wait(1_000), true)
  assert.deepEqual(asked, [])
  assert.ok(await isPending(signal.wait(1_000)))
})

test('a signal that is raised during a wait ends it', async () => {
  const { runtime } = frozen()
  const signal = createSignal(runtime)
  const waiting = signal.wait(1_000)
  assert.ok(await isPending(waiting))
  signal.raise()
  assert.equal(await waiting, true)
  assert.ok(await isPending(signal.wait(1_000)))
})

test('a signal that is raised when a wait has just ended is not lost', async () => {
  const { runtime } = frozen()
  const signal = createSignal(runtime)
  const waiting = signal.wait(1_000)
  signal.raise()
  await waiting
  signal.raise()
  await signal.wait(1_000)
})

test('a wait ends by itself after its limit', async () => {
  const { runtime, asked, ends } = frozen()
  const signal = createSignal(runtime)
  const waiting = signal.wait(250)
  ends[0]!()
  assert.equal(await waiting, false)
  assert.deepEqual(asked, [250])
})

test('raiseIn ends a wait after its delay, once for all calls during the delay', async () => {
  const { runtime, asked, ends } = frozen()
  const signal = createSignal(runtime)
  signal.raiseIn(25)
  signal.raiseIn(25)
  assert.deepEqual(asked, [25])
  const waiting = signal.wait(1_000)
  assert.ok(await isPending(waiting))
  ends[0]!()
  await waiting
  assert.ok(await isPending(signal.wait(1_000)))
})

test('a signal that is raised before the end of its delay is not raised again at the end', async () => {
  const { runtime } = frozen()
  const signal = createSignal(runtime)
  signal.raiseIn(25)
  signal.raise()
  await signal.wait(1_000)
  assert.ok(await isPending(signal.wait(1_000)))
})
