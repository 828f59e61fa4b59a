import { callMessage, eventMessage } from '../../chassis/flow-messages.ts'
import { NOTIFY_PATH } from '../../chassis/notification-calls.ts'
import type { Reason } from '../../contracts/events.ts'
import { toUnits } from '../../contracts/money.ts'
import { flowOf } from '../../contracts/style.ts'
import type { TraceContext } from '../../contracts/trace-context.ts'
import type { OutboxMessage } from '../../messaging/outbox/outbox.ts'
import type { Order, OrderEffect } from './order.ts'

/**
 * Turns the effects of order's rules into messages. The style decides whether an effect is a call or an event.
 * A call to billing has the order's id as its key, because billing accepts the calls of an order in any order
 * (a void wins over the payment either way). All other messages have the account's id as their key.
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
  const { payment, announcement } = flowOf(style)
  const common = { style, ...trace }
  switch (effect) {
    case 'requestPayment': {
      const price = toUnits(order.priceMinor)
      const id = `${orderId}/ORDER_CREATED`
      const meta = { ...common, id, ...(deadlineMs && { deadlineMs }) }
      if (payment === 'call') {
        return callMessage(PAY_PATH, orderId, meta, { accountId, amount: price, orderId })
      }
      return eventMessage('order', { event: 'ORDER_CREATED', orderId, accountId, price }, meta, now)
    }
    case 'voidPayment': {
      const meta = { ...common, id: `${orderId}/ORDER_CANCELED` }
      if (payment === 'call') return callMessage(voidPath(orderId), orderId, meta, { accountId })
      return eventMessage('order', { event: 'ORDER_CANCELED', orderId, accountId }, meta, now)
    }
    case 'announceFailure': {
      // Billing derives the same id, so if both announce the failure, the customer gets one notice.
      const id = `${orderId}/PAYMENT_FAIL`
      const meta = { ...common, id, ...(reason && { reason }) }
      const body = { event: 'PAYMENT_FAIL', orderId, accountId } as const
      return announcement === 'call'
        ? callMessage(NOTIFY_PATH, accountId, meta, body)
        : eventMessage('order', body, meta, now)
    }
  }
}
