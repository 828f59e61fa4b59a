import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { InteractionStyle } from '../../contracts/style.ts'
import { until } from '../../platform/async/until.ts'
import { sendBare } from '../../tests/support/harness.ts'
import { POLL_MS, startOrder, VOID_ATTEMPTS } from '../../tests/support/order-service.ts'

const { bus, database, clock, billing, wire, call, metricsText } = await startOrder(
  { status: 200, body: 'paid' },
  ['billing', 'payment'],
)

const sent = (accountId: string) =>
  wire.of(accountId).flatMap(({ topic, body }) => (topic === 'billing' ? [body.event] : []))
const isWatched = async (orderId: string) =>
  (await database.query('select from orders.void_watch where order_id = $1', [orderId])).length > 0

const stateOf = async (orderId: string, accountId: string) =>
  (await call('GET', `/orders/${orderId}?profileId=${accountId}`)).body.state

async function place(style: InteractionStyle, accountId: string): Promise<string> {
  const path = `/orders?profileId=${accountId}`
  const headers = { 'x-interaction-style': style }
  return (await call('POST', path, { body: { productQuantity: 3 }, headers })).body
}

async function placeAndDelete(style: InteractionStyle) {
  const accountId = crypto.randomUUID()
  const orderId = await place(style, accountId)
  await call('DELETE', `/orders/${orderId}?profileId=${accountId}`)
  return { accountId, orderId }
}

const outcomes = [{ event: 'PAYMENT_FAIL' }, { event: 'PAYMENT_REFUNDED', value: 195 }] as const

for (const outcome of outcomes) {
  test(`a void by event is resent until the billing service announces ${outcome.event}`, async () => {
    const { accountId, orderId } = await placeAndDelete('events')
    await until(() => {
      clock.advance(POLL_MS)
      return sent(accountId).length >= 4
    })
    const [first, ...voids] = sent(accountId)
    assert.equal(first, 'ORDER_CREATED')
    assert.deepEqual([...new Set(voids)], ['ORDER_CANCELED'], 'it does not ask to be paid again')
    assert.equal(await isWatched(orderId), true)
    await sendBare(bus, 'payment', { ...outcome, orderId, accountId })
    await until(async () => !(await isWatched(orderId)), { what: 'the end of the watch' })
    const { body: order } = await call('GET', `/orders/${orderId}?profileId=${accountId}`)
    assert.deepEqual([order.state, order.reason], ['CANCELED', 'DELETED'])
  })
}

test('an announcement by the order service itself does not confirm a void', async () => {
  const { accountId, orderId } = await placeAndDelete('events')
  const announced = await until(() =>
    wire.of(accountId).find(({ topic, body }) => topic === 'payment' && body.orderId === orderId),
  )
  assert.deepEqual(announced.body, { event: 'PAYMENT_FAIL', orderId, accountId })
  // At this point, the announcement has been read, because a later message on the same topic has been.
  const other = await place('events', accountId)
  await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId: other, accountId })
  await until(async () => (await stateOf(other, accountId)) === 'APPROVED')
  assert.equal(await isWatched(orderId), true)
})

test('a void by call is retried until the billing service confirms it', async () => {
  billing.respondWith(({ path }) =>
    path.endsWith('/void') ? { status: 503 } : { status: 200, body: 'paid' },
  )
  const { orderId } = await placeAndDelete('hybrid')
  assert.equal(await isWatched(orderId), true)
  billing.respondWith({ status: 200, body: { orderId, state: 'REFUNDED' } })
  await until(async () => {
    clock.advance(POLL_MS)
    return !(await isWatched(orderId))
  })
})

test('an order with an unconfirmed void is listed as stuck, and its void is then resent less often', async () => {
  const { accountId, orderId } = await placeAndDelete('events')
  const listed = async (query: string) =>
    (await call('GET', `/orders/pending?${query}`)).body.find(
      ({ id }: { id: string }) => id === orderId,
    )
  const waiting = await listed('waitsFor=void')
  assert.deepEqual([waiting.state, waiting.stuck, waiting.deadline], ['CANCELED', false, null])
  assert.equal(await listed('waitsFor=payment'), undefined)
  const stuck = await until(async () => {
    clock.advance(POLL_MS)
    return await listed('stuck=true')
  })
  assert.deepEqual([stuck.profileId, stuck.waitsFor], [accountId, 'void'])
  assert.equal(stuck.attempts, VOID_ATTEMPTS)
  assert.match(await metricsText(), /^trifold_orders_stuck\S* [1-9]/m)
  const inMinutes = (Date.parse(stuck.nextAttempt) - clock.runtime.now()) / 60_000
  assert.ok(inMinutes > 58 && inMinutes <= 60, String(inMinutes))
  await sendBare(bus, 'payment', { event: 'PAYMENT_FAIL', orderId, accountId })
  await until(async () => (await listed('')) === undefined)
})
