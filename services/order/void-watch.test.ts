import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { InteractionStyle } from '../../contracts/style.ts'
import { sendBare, until } from '../../tests/harness.ts'
import { LOOK_MS, startOrder } from '../../tests/order-service.ts'

const { bus, database, clock, wire, call } = await startOrder({ status: 200, body: 'paid' }, [
  'billing',
])

const said = (accountId: string) => wire.of(accountId).map(({ body }) => body.event)
const isWatched = async (orderId: string) =>
  (await database.query('select from orders.void_watch where order_id = $1', [orderId])).length > 0

async function placeAndDelete(style: InteractionStyle) {
  const accountId = crypto.randomUUID()
  const path = `/orders?profileId=${accountId}`
  const headers = { 'x-interaction-style': style }
  const { body: orderId } = await call('POST', path, { body: { productQuantity: 3 }, headers })
  await call('DELETE', `/orders/${orderId}?profileId=${accountId}`)
  return { accountId, orderId }
}

const outcomes = [{ event: 'PAYMENT_FAIL' }, { event: 'PAYMENT_REFUNDED', value: 195 }] as const

for (const outcome of outcomes) {
  test(`a void by event is asked for again until billing says ${outcome.event}`, async () => {
    const { accountId, orderId } = await placeAndDelete('events')
    await until(() => {
      clock.moveOn(LOOK_MS)
      return said(accountId).length >= 4
    })
    const [, , ...again] = said(accountId)
    assert.deepEqual(again.slice(0, 2), ['ORDER_CANCELED', 'ORDER_CREATED'])
    assert.equal(await isWatched(orderId), true)
    await sendBare(bus, 'payment', { ...outcome, orderId, accountId })
    await until(async () => !(await isWatched(orderId)), 'the end of the watch')
    const { body: order } = await call('GET', `/orders/${orderId}?profileId=${accountId}`)
    assert.deepEqual([order.state, order.reason], ['CANCELED', 'DELETED'])
  })
}

test('a void by call is not watched: the call goes on until billing has it', async () => {
  const { orderId } = await placeAndDelete('hybrid')
  assert.equal(await isWatched(orderId), false)
})
