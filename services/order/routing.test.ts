import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { InteractionStyle } from '../../contracts/style.ts'
import type { Order } from './order.ts'
import { route } from './routing.ts'

const orderId = '0190aaaa-0000-7000-8000-000000000001'
const accountId = '0190aaaa-0000-7000-8000-000000000002'
const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
const now = Date.parse('2026-03-01T10:20:30.456Z')

const order = (style: InteractionStyle): Order => ({
  id: orderId,
  profileId: accountId,
  productQuantity: 3,
  priceMinor: 19_550n,
  style,
  state: 'PENDING',
  reason: null,
  idempotencyKey: null,
})

const cloudEvent = (event: string, style: InteractionStyle) => ({
  ce_id: `${orderId}/${event}`,
  ce_type: event,
  ce_source: '/trifold/order',
  ce_time: '2026-03-01T10:20:30.456Z',
  ce_specversion: '1.0',
  'content-type': 'application/json',
  'x-interaction-style': style,
  traceparent,
})
const callHeaders = (event: string, style: InteractionStyle) => ({
  'content-type': 'application/json',
  'idempotency-key': `${orderId}/${event}`,
  'x-interaction-style': style,
  traceparent,
})

test('in events, a payment is requested by ORDER_CREATED on the topic billing', () => {
  assert.deepEqual(route('requestPayment', order('events'), null, now, { traceparent }), {
    carrier: 'broker',
    destination: 'billing',
    key: accountId,
    eventId: `${orderId}/ORDER_CREATED`,
    body: JSON.stringify({ event: 'ORDER_CREATED', orderId, accountId, price: 195.5 }),
    headers: cloudEvent('ORDER_CREATED', 'events'),
  })
})

test('in events, a void is requested by ORDER_CANCELED on the topic billing', () => {
  assert.deepEqual(route('voidPayment', order('events'), 'DELETED', now, { traceparent }), {
    carrier: 'broker',
    destination: 'billing',
    key: accountId,
    eventId: `${orderId}/ORDER_CANCELED`,
    body: JSON.stringify({ event: 'ORDER_CANCELED', orderId, accountId }),
    headers: cloudEvent('ORDER_CANCELED', 'events'),
  })
})

for (const style of ['http', 'hybrid'] as const) {
  test(`in ${style}, a payment is requested by a call to the billing service, with the order's id as the key`, () => {
    assert.deepEqual(route('requestPayment', order(style), null, now, { traceparent }), {
      carrier: 'http',
      destination: '/billing/account',
      key: orderId,
      eventId: `${orderId}/ORDER_CREATED`,
      body: JSON.stringify({ accountId, amount: 195.5, orderId }),
      headers: callHeaders('ORDER_CREATED', style),
    })
  })

  test(`in ${style}, a void is requested by a call to the billing service`, () => {
    assert.deepEqual(route('voidPayment', order(style), 'DELETED', now, { traceparent }), {
      carrier: 'http',
      destination: `/billing/payments/${orderId}/void`,
      key: orderId,
      eventId: `${orderId}/ORDER_CANCELED`,
      body: JSON.stringify({ accountId }),
      headers: callHeaders('ORDER_CANCELED', style),
    })
  })
}

test('a failure is announced by PAYMENT_FAIL on the topic payment, with the reason in a header', () => {
  const trace = { traceparent }
  const message = route('announceFailure', order('hybrid'), 'BILLING_UNREACHABLE', now, trace)
  assert.deepEqual(message, {
    carrier: 'broker',
    destination: 'payment',
    key: accountId,
    eventId: `${orderId}/PAYMENT_FAIL`,
    body: JSON.stringify({ event: 'PAYMENT_FAIL', orderId, accountId }),
    headers: { ...cloudEvent('PAYMENT_FAIL', 'hybrid'), 'x-reason': 'BILLING_UNREACHABLE' },
  })
})

test('an order continues in the default style if its own style is known only to a later version', () => {
  const unknown = route(
    'requestPayment',
    order('of a later version' as InteractionStyle),
    null,
    now,
  )
  assert.deepEqual([unknown.carrier, unknown.destination], ['broker', 'billing'])
})

test('a resent request is the same message, without a trace if none is known', () => {
  for (const style of ['http', 'hybrid', 'events'] as const) {
    const first = route('requestPayment', order(style), null, now, { traceparent })
    const again = route('requestPayment', order(style), null, now + 5_000)
    assert.deepEqual([again.eventId, again.body], [first.eventId, first.body])
    assert.equal('traceparent' in again.headers, false)
  }
})
