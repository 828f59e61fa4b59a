import { callMessage, eventMessage } from '../../chassis/flow-messages.ts'
import { NOTIFY_PATH } from '../../chassis/notification-calls.ts'
import type { Reason } from '../../contracts/events.ts'
import { toUnits } from '../../contracts/money.ts'
import { flowOf } from '../../contracts/style.ts'
import type { TraceContext } from '../../contracts/trace-context.ts'
import type { OutboxMessage } from '../../messaging/outbox/outbox.ts'
import type { Order, OrderEffect } from './order.ts'

/**
 * Turns the effects that the rules in `order.ts` ask for into outbox messages. The style of the order decides
 * whether an effect becomes a call or an event. A call to the billing service has the order's id as its key,
 * so it does not wait for calls about other orders of the same account. This is safe because a void wins over
 * the payment whichever of the two arrives first. All other messages have the account's id as their key.
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
      // The billing service derives the same id, so if both services announce the failure, the customer gets
      // one notice.
      const id = `${orderId}/PAYMENT_FAIL`
      const meta = { ...common, id, ...(reason && { reason }) }
      const body = { event: 'PAYMENT_FAIL', orderId, accountId } as const
      return announcement === 'call'
        ? callMessage(NOTIFY_PATH, accountId, meta, body)
        : eventMessage('order', body, meta, now)
    }
  }
}
