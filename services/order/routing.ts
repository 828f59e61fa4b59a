import { DEADLINE_HEADER, deadlineHeader } from '../../contracts/deadline.ts'
import { type EventMeta, eventHeaders, type Reason } from '../../contracts/events.ts'
import { toUnits } from '../../contracts/money.ts'
import { STYLE_HEADER } from '../../contracts/style.ts'
import { type TraceContext, traceOf } from '../../contracts/trace-context.ts'
import { NOTIFY_PATH } from '../../messaging/notification-calls.ts'
import type { OutboxMessage } from '../../messaging/outbox.ts'
import type { Order, OrderEffect } from './order.ts'

/**
 * How what order asks of others travels: the interaction styles, seen from order. Calls have the
 * order's id as their key, since billing takes them in any sequence (a void wins either way); events
 * and calls to notification have the account's, as the topics do.
 */
export const PAY_PATH = '/billing/account'
const voidPath = (orderId: string) => `/billing/payments/${orderId}/void`

export function route(
  effect: OrderEffect,
  order: Order,
  reason: Reason | null,
  now: number,
  trace: TraceContext = {},
  deadlineMs?: number,
): OutboxMessage {
  const { id: orderId, profileId: accountId, style } = order
  switch (effect) {
    case 'requestPayment': {
      const id = `${orderId}/ORDER_CREATED`
      const price = toUnits(order.priceMinor)
      const meta = { id, style, ...trace, ...(deadlineMs && { deadlineMs }) }
      return style === 'events'
        ? event('billing', { event: 'ORDER_CREATED', orderId, accountId, price }, meta, now)
        : call(PAY_PATH, orderId, { accountId, amount: price, orderId }, meta)
    }
    case 'voidPayment': {
      const id = `${orderId}/ORDER_CANCELED`
      return style === 'events'
        ? event(
            'billing',
            { event: 'ORDER_CANCELED', orderId, accountId },
            { id, style, ...trace },
            now,
          )
        : call(voidPath(orderId), orderId, { accountId }, { id, style, ...trace })
    }
    case 'announceFailure': {
      // The id that billing would derive, too: both announce one event, which the customer reads once.
      const meta = { id: `${orderId}/PAYMENT_FAIL`, style, ...(reason && { reason }), ...trace }
      const body = { event: 'PAYMENT_FAIL', orderId, accountId }
      return style === 'http'
        ? call(NOTIFY_PATH, accountId, body, meta)
        : event('payment', body, meta, now)
    }
  }
}

function event(
  topic: 'billing' | 'payment',
  body: { event: string; accountId: string; orderId: string; price?: number },
  meta: EventMeta,
  now: number,
): OutboxMessage {
  return {
    carrier: 'broker',
    destination: topic,
    key: body.accountId,
    eventId: meta.id,
    body: JSON.stringify(body),
    headers: eventHeaders(body.event, 'order', now, meta),
  }
}

function call(path: string, key: string, body: object, meta: EventMeta): OutboxMessage {
  return {
    carrier: 'http',
    destination: path,
    key,
    eventId: meta.id,
    body: JSON.stringify(body),
    headers: {
      'content-type': 'application/json',
      'idempotency-key': meta.id,
      ...(meta.style && { [STYLE_HEADER]: meta.style }),
      ...(meta.reason && { 'x-reason': meta.reason }),
      ...(meta.deadlineMs && { [DEADLINE_HEADER]: deadlineHeader(meta.deadlineMs) }),
      ...traceOf(meta),
    },
  }
}
