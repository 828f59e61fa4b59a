import assert from 'node:assert/strict'
import { flowOf, type InteractionStyle } from '../../contracts/style.ts'
import { type Client, eventually } from '../e2e/client.ts'
import { LIMIT_MS } from './witnesses.ts'

/**
 * A customer deposits amounts of all sizes, places an order that is paid and deletes it, and places one that is
 * refused. Returns the account; the last deposit may still be in flight.
 */
export async function liveThrough(ours: Client, style: InteractionStyle): Promise<string> {
  const account = await ours.createAccount()
  for (const amount of [0.01, 199.9]) await ours.deposit(account, amount, style)
  // In `events` an order can overtake a deposit, because the relays of different services send them.
  await eventually(async () => assert.equal(await ours.balance(account), 199.91), LIMIT_MS)
  const settled = (id: string) => ours.getOrder(account, id, 30)
  const paid = await ours.order(account, { style })
  assert.equal((await settled(paid.body)).state, 'APPROVED')
  const { body } = await ours.order(account, { style, quantity: 1_000_000 })
  const refused = flowOf(style).response === 'id' ? body : body.orderId
  assert.equal((await settled(refused as string)).reason, 'NOT_ENOUGH_MONEY')
  await ours.deleteOrder(account, paid.body)
  await eventually(async () => {
    assert.equal((await ours.payment(paid.body)).state, 'REFUNDED')
  }, LIMIT_MS)
  await ours.deposit(account, 999_999_999.9, style)
  return account
}

/** The events about such a customer on the topic `payment`, in every style except `http`. */
export const PAYMENT_STORY = [
  ...['DEPOSIT_ACCEPTED', 'DEPOSIT_ACCEPTED', 'ORDER_PAID', 'PAYMENT_FAIL'],
  ...['PAYMENT_REFUNDED', 'DEPOSIT_ACCEPTED'],
]

/** The requests to billing for such a customer on the topic `billing`, in `events`. */
export const BILLING_STORY = [
  ...['DEPOSIT_REQUEST', 'DEPOSIT_REQUEST', 'ORDER_CREATED', 'ORDER_CREATED'],
  ...['ORDER_CANCELED', 'DEPOSIT_REQUEST'],
]
