import { callMessage, eventMessage } from '../../chassis/flow-messages.ts'
import { NOTIFY_PATH } from '../../chassis/notification-calls.ts'
import {
  type BalanceChanged,
  type EventMeta,
  eventHeaders,
  type PaymentEvent,
} from '../../contracts/events.ts'
import { toUnits } from '../../contracts/money.ts'
import { flowOf, publishesResults } from '../../contracts/style.ts'
import { type TraceContext, traceOf } from '../../contracts/trace-context.ts'
import type { OutboxMessage } from '../../messaging/outbox/outbox.ts'
import type { Account, Announcement, Deposit, Payment } from './ledger.ts'

/**
 * Turns the announcements that the rules in `ledger.ts` ask for into outbox messages. The style decides
 * whether a message is a call or an event. Its id is derived from the announced fact, so a repeated
 * announcement has the same id.
 */
export interface Companions extends TraceContext {
  /** The current time, in epoch milliseconds. */
  readonly now: number
}

export function route(announcement: Announcement, at: Companions): OutboxMessage[] {
  switch (announcement.event) {
    case 'DEPOSIT_REQUEST':
      return [requestDeposit(announcement.deposit, at)]
    case 'DEPOSIT_ACCEPTED': {
      const { event, deposit } = announcement
      const meta = { ...traceOf(at), id: `${deposit.id}/${event}`, style: deposit.style }
      return announce({ event, ...depositTerms(deposit) }, meta, at)
    }
    case 'ORDER_PAID':
    case 'PAYMENT_FAIL':
    case 'PAYMENT_REFUNDED':
      return announcePayment(announcement, at)
  }
}

export function requestDeposit(deposit: Deposit, at: Companions): OutboxMessage {
  const body = { event: 'DEPOSIT_REQUEST', ...depositTerms(deposit) } as const
  const meta = { ...traceOf(at), id: deposit.id, style: deposit.style }
  return eventMessage('billing', body, meta, at.now)
}

function depositTerms(deposit: Deposit) {
  return { accountId: deposit.accountId, value: toUnits(deposit.amountMinor) }
}

function announcePayment(
  { event, payment }: Extract<Announcement, { readonly payment: Payment }>,
  at: Companions,
): OutboxMessage[] {
  const { orderId, style, reason } = payment
  const accountId = payment.accountId as string
  const amountMinor = payment.amountMinor as bigint
  const meta = { ...traceOf(at), id: `${orderId}/${event}`, style }
  switch (event) {
    case 'ORDER_PAID':
      // The body has no amount, so the amount travels in a header: the order service must not accept a
      // payment of another amount.
      return announce({ event, orderId, accountId }, { ...meta, amountMinor }, at)
    case 'PAYMENT_FAIL':
      return announce({ event, orderId, accountId }, { ...meta, ...(reason && { reason }) }, at)
    case 'PAYMENT_REFUNDED': {
      const messages = announce(
        { event, orderId, accountId, value: toUnits(amountMinor) },
        meta,
        at,
      )
      return publishesResults(flowOf(style)) ? messages : [...messages, deleteOrder(payment, at)]
    }
  }
}

/**
 * A style that announces by call may also publish the result on a topic, for the order service. The
 * notification service then receives the result twice and deduplicates it by its id.
 */
function announce(
  body: PaymentEvent,
  meta: EventMeta & { readonly style: Payment['style'] },
  at: Companions,
): OutboxMessage[] {
  const flow = flowOf(meta.style)
  const messages: OutboxMessage[] = []
  if (flow.announcement === 'call') {
    messages.push(callMessage(NOTIFY_PATH, body.accountId, meta, body))
  }
  if (publishesResults(flow)) messages.push(eventMessage('billing', body, meta, at.now))
  return messages
}

/**
 * Notifies the order service of a refund by deleting the order, in styles whose results are not published on
 * a topic. The call is sent even if the caller that voided the payment claims to be the order service,
 * because an Idempotency-Key cannot prove that, and deleting a canceled order changes nothing.
 */
function deleteOrder({ orderId, accountId, style }: Payment, at: Companions): OutboxMessage {
  const path = `/orders/${orderId}?profileId=${accountId}`
  return callMessage(path, orderId, { ...traceOf(at), id: `${orderId}/DELETE`, style })
}

/** The balance event of an account. In every style, one is sent after each batch that changes the balance. */
export function balanceChanged(account: Account, at: Companions): OutboxMessage {
  const body: BalanceChanged = {
    accountId: account.id,
    balance: toUnits(account.balanceMinor),
    version: account.version,
    updated: new Date(at.now).toISOString(),
  }
  const id = `${account.id}/BALANCE_CHANGED/${account.version}`
  return {
    carrier: 'broker',
    destination: 'balance',
    key: account.id,
    eventId: id,
    body: JSON.stringify(body),
    headers: eventHeaders('BALANCE_CHANGED', 'billing', at.now, { id, ...traceOf(at) }),
    canWait: true,
  }
}
