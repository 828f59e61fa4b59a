import assert from 'node:assert/strict'
import { test } from 'node:test'
import { until } from './until.ts'

test('until returns the value found, however many polls it takes', async () => {
  let polls = 0
  assert.equal(await until(() => (polls++ < 2 ? undefined : 'found')), 'found')
  assert.equal(await until(async () => 0), 0)
})

test('until counts a poll that throws as one that found nothing', async () => {
  let polls = 0
  const find = async () => {
    if (polls++ === 0) throw new Error('not yet')
    return true
  }
  assert.equal(await until(find), true)
})

test('until rejects after its limit, with the error of the last poll as the cause', async () => {
  const cause = new Error('connection refused')
  const waiting = until(
    () => {
      throw cause
    },
    { limitMs: 20, what: 'the answer' },
  )
  await assert.rejects(waiting, (error: Error) => {
    assert.match(error.message, /^the answer did not come true within 0\.02 s: connection refused/)
    assert.equal(error.cause, cause)
    return true
  })
})

test('until rejects as soon as its process ends or its signal aborts', async () => {
  const never = () => false
  await assert.rejects(until(never, { ended: Promise.resolve(3) }), /ended with code 3/)
  const reason = new Error('stopped')
  await assert.rejects(until(never, { signal: AbortSignal.abort(reason) }), reason)
})
