import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { InteractionStyle } from '../../contracts/style.ts'
import {
  caller,
  openParts,
  readTopics,
  sendBare,
  startFakeService,
  until,
} from '../../tests/harness.ts'
import { createOrderService } from './service.ts'

/** Order looks once a second for what is to be asked for again. */
const LOOK_MS = 1_000

const { parts, clock, close } = await openParts('order')
const { bus, database } = parts
const billing = await startFakeService({ status: 200, body: 'paid' })
const service = await createOrderService(parts, {
  INTERACTION_STYLE: 'events',
  ALLOW_STYLE_OVERRIDE: true,
  CALL_TIMEOUT_MS: 300,
  IDEMPOTENCY_KEY_TTL_MS: 86_400_000,
  UNIT_PRICE: '65',
  ASK_AGAIN_AFTER_MS: 100,
  ORDER_DEADLINE_MS: 600_000,
  BILLING_URL: billing.url,
})
const wire = await readTopics(bus, ['billing'])
after(async () => {
  await wire.close()
  await service.close()
  await billing.close()
  await close()
})
const call = caller(service)

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
