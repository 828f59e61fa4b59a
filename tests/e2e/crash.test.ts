import assert from 'node:assert/strict'
import { test } from 'node:test'
import { eventually } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { assertSettled, PATIENT, startBurst } from './order-burst.ts'
import { startApart } from './program.ts'
import { ON_STACK } from './world.ts'

/** Of processes billing may die first, and an order may yet have found that out. */
const OUTCOMES = ON_STACK ? [201, 402, 503] : [201, 402]

test('killed in a burst of orders in each style, it settles them all when it starts again', async (t) => {
  const apart = await startApart(PATIENT)
  t.after(() => apart.close())
  const burst = await startBurst(apart.client)
  await burst.answered(2)
  await apart.kill()
  await burst.over
  const unanswered = burst.sent.filter(({ answer }) => answer === undefined)
  assert.ok(unanswered.length > 0, 'nothing was in flight')

  const trifold = await apart.restart()
  await assertSettled(trifold, burst)

  // Each customer who got no answer asks again: the key of an order finds its order, whatever it
  // was at when the process died, and a key that never arrived is a new order.
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
      else assert.ok(OUTCOMES.includes(again.status), `${style} answered ${again.status}`)
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
