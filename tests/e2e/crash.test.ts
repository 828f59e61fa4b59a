import assert from 'node:assert/strict'
import { test } from 'node:test'
import { eventually } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { assertSettled, PATIENT, startBurst } from './order-burst.ts'
import { startApart } from './program.ts'
import { ON_STACK } from './world.ts'

/**
 * On the stack the billing service may be killed first. If the order service noticed that, it canceled the
 * order with 503.
 */
const OUTCOMES = ON_STACK ? [201, 402, 503] : [201, 402]

test('a program that is killed in a burst of orders settles all of them after its restart, in each style', async (t) => {
  const apart = await startApart(PATIENT)
  t.after(() => apart.close())
  const burst = await startBurst(apart.client)
  await burst.answered(2)
  await apart.kill()
  await burst.over
  const unanswered = burst.sent.filter(({ answer }) => answer === undefined)
  assert.ok(unanswered.length > 0, 'no request was in flight')

  const trifold = await apart.restart()
  await assertSettled(trifold, burst)

  // Each customer without a response repeats the request. If the first request arrived, its key finds the
  // order, in whatever state the process left it; otherwise the repeat creates the order.
  await Promise.all(
    burst.sent.map(async (one) => {
      const { style, account, key } = one
      const again = await eventually(async () => {
        const answer = await trifold.order(account, { style, key })
        assert.notEqual(answer.status, 409)
        return answer
      })
      if (one.answer)
        assert.deepEqual([again.status, again.body], [one.answer.status, one.answer.body])
      else assert.ok(OUTCOMES.includes(again.status), `${style} returned ${again.status}`)
      one.answer = again
    }),
  )
  const ids = await assertSettled(trifold, burst)
  for (const account of burst.accounts.values()) {
    const keys = burst.sent.filter((one) => one.account === account).length
    assert.equal(ids.get(account)?.size, keys)
  }
  await assertInvariantsHold(trifold)
})
