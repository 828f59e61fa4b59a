import assert from 'node:assert/strict'
import { test } from 'node:test'
import { REASONS, type Reason } from '../../contracts/events.ts'
import { textOf } from './message.ts'

const accountId = '0190aaaa-0000-7000-8000-000000000002'
const orderId = '0190aaaa-0000-7000-8000-000000000001'
const to = { eventId: 'e-1', accountId, source: 'event' } as const

test('the notice of a deposit states the amount with as few digits as possible', () => {
  for (const [valueMinor, amount] of [
    [19_900n, '199'],
    [19_950n, '199.5'],
    [1n, '0.01'],
    [100_000_000_000n, '1000000000'],
  ] as const) {
    const text = textOf({ ...to, event: 'DEPOSIT_ACCEPTED', valueMinor })
    assert.equal(text, `DEPOSIT ${amount} ACCEPTED ON ACCOUNT ${accountId}`)
  }
})

test('the notice of a payment names the order', () => {
  const text = textOf({ ...to, event: 'ORDER_PAID', orderId })
  assert.equal(text, `ORDER ${orderId} PAID SUCCESSFULLY`)
})

test('the notice of a refund names the order, the amount and the account', () => {
  const text = textOf({ ...to, event: 'PAYMENT_REFUNDED', orderId, valueMinor: 19_500n })
  assert.equal(text, `ORDER ${orderId} REFUNDED: 195 ON ACCOUNT ${accountId}`)
})

test('the notice of a failure without a reason, or for lack of money, says that there was not enough money', () => {
  for (const reason of [null, 'NOT_ENOUGH_MONEY'] as const) {
    const text = textOf({ ...to, event: 'PAYMENT_FAIL', orderId, reason })
    assert.equal(text, `NOT ENOUGH MONEY on account ${accountId} for order ${orderId}`)
  }
})

test('the notice of a failure for another reason does not mention money', () => {
  const reasons = Object.keys(REASONS) as Reason[]
  for (const reason of reasons.filter((reason) => reason !== 'NOT_ENOUGH_MONEY')) {
    const text = textOf({ ...to, event: 'PAYMENT_FAIL', orderId, reason })
    assert.doesNotMatch(text, /ENOUGH/)
    assert.ok(text.includes(orderId))
  }
})
