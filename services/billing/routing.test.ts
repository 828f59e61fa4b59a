import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { InteractionStyle } from '../../contracts/style.ts'
import type { Announcement, Deposit, Payment } from './ledger.ts'
import { balanceChanged, route } from './routing.ts'

const orderId = '0190aaaa-0000-7000-8000-000000000001'
const accountId = '0190aaaa-0000-7000-8000-000000000002'
const depositId = '0190aaaa-0000-7000-8000-000000000003'
const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
const at = { now: Date.parse('2026-03-01T10:20:30.456Z'), traceparent }

const payment = (style: InteractionStyle, given: Partial<Payment> = {}): Payment => ({
  id: 'pay-1',
  orderId,
  accountId,
  amountMinor: 19_550n,
  state: 'PAID',
  reason: null,
  style,
  ...given,
})
const deposit = (style: InteractionStyle): Deposit => ({
  id: depositId,
  accountId,
  amountMinor: 10n,
  state: 'APPLIED',
  style,
})

const cloudEvent = (id: string, type: string) => ({
  ce_id: id,
  ce_type: type,
  ce_source: '/trifold/billing',
  ce_time: '2026-03-01T10:20:30.456Z',
  ce_specversion: '1.0',
  'content-type': 'application/json',
})

const paid = (style: InteractionStyle): Announcement => ({
  event: 'ORDER_PAID',
  payment: payment(style),
})
const failed = (style: InteractionStyle): Announcement => ({
  event: 'PAYMENT_FAIL',
  payment: payment(style, { state: 'REFUSED', reason: 'ACCOUNT_NOT_FOUND' }),
})
const refunded = (style: InteractionStyle): Announcement => ({
  event: 'PAYMENT_REFUNDED',
  payment: payment(style, { state: 'REFUNDED' }),
})
const accepted = (style: InteractionStyle): Announcement => ({
  event: 'DEPOSIT_ACCEPTED',
  deposit: deposit(style),
})

const cases = [
  [paid, orderId, { event: 'ORDER_PAID', orderId, accountId }, { 'x-amount': '195.5' }],
  [
    failed,
    orderId,
    { event: 'PAYMENT_FAIL', orderId, accountId },
    { 'x-reason': 'ACCOUNT_NOT_FOUND' },
  ],
  [refunded, orderId, { event: 'PAYMENT_REFUNDED', orderId, accountId, value: 195.5 }, {}],
  [accepted, depositId, { event: 'DEPOSIT_ACCEPTED', accountId, value: 0.1 }, {}],
] as const

for (const [announce, cause, body, more] of cases) {
  const { event } = body
  const eventId = `${cause}/${event}`
  describe(event, () => {
    for (const style of ['hybrid', 'events'] as const) {
      test(`is an event on the topic payment in ${style}`, () => {
        assert.deepEqual(route(announce(style), at), [
          {
            carrier: 'broker',
            destination: 'payment',
            key: accountId,
            eventId,
            body: JSON.stringify(body),
            headers: {
              ...cloudEvent(eventId, event),
              'x-interaction-style': style,
              ...more,
              traceparent,
            },
          },
        ])
      })
    }

    test('is a call to the notification service in http, with the body of the event', () => {
      const { 'x-amount': _, ...reason }: { 'x-amount'?: string; 'x-reason'?: string } = more
      const [call, ...others] = route(announce('http'), at)
      assert.equal(others.length, event === 'PAYMENT_REFUNDED' ? 1 : 0)
      assert.deepEqual(call, {
        carrier: 'http',
        destination: '/notification/',
        key: accountId,
        eventId,
        body: JSON.stringify(body),
        headers: {
          'content-type': 'application/json',
          'idempotency-key': eventId,
          'x-interaction-style': 'http',
          ...reason,
          traceparent,
        },
      })
    })
  })
}

test('a deposit is requested on the topic billing, under its own id', () => {
  const [request, ...others] = route({ event: 'DEPOSIT_REQUEST', deposit: deposit('events') }, at)
  assert.deepEqual(others, [])
  assert.deepEqual(request, {
    carrier: 'broker',
    destination: 'billing',
    key: accountId,
    eventId: depositId,
    body: JSON.stringify({ event: 'DEPOSIT_REQUEST', accountId, value: 0.1 }),
    headers: {
      ...cloudEvent(depositId, 'DEPOSIT_REQUEST'),
      'x-interaction-style': 'events',
      traceparent,
    },
  })
})

test('the id of a balance event is derived from the account and its version', () => {
  const account = { id: accountId, balanceMinor: 123n, version: 7, pendingMinor: 500n }
  const eventId = `${accountId}/BALANCE_CHANGED/7`
  const updated = '2026-03-01T10:20:30.456Z'
  assert.deepEqual(balanceChanged(account, at), {
    carrier: 'broker',
    destination: 'balance',
    key: accountId,
    eventId,
    body: JSON.stringify({ accountId, balance: 1.23, version: 7, updated }),
    headers: { ...cloudEvent(eventId, 'BALANCE_CHANGED'), traceparent },
    canWait: true,
  })
})

test('in http, a call notifies the order service of a refund, because that service reads no results on a topic', () => {
  assert.deepEqual(route(refunded('http'), at)[1], {
    carrier: 'http',
    destination: `/orders/${orderId}?profileId=${accountId}`,
    key: orderId,
    eventId: `${orderId}/DELETE`,
    body: '',
    headers: { 'x-interaction-style': 'http', traceparent },
  })
})

test('a repeated announcement is the same message, except for its time and trace', () => {
  const [first] = route(paid('events'), at)
  const [again] = route(paid('events'), { now: at.now + 60_000 })
  assert.deepEqual([again?.eventId, again?.body], [first?.eventId, first?.body])
  assert.equal(again?.headers.ce_time, '2026-03-01T10:21:30.456Z')
  assert.equal('traceparent' in again.headers, false)
})
