import { type BalanceChanged, type EventMeta, eventHeaders } from '../../contracts/events.ts'
import { toUnits } from '../../contracts/money.ts'
import { STYLE_HEADER } from '../../contracts/style.ts'
import { type TraceContext, traceOf } from '../../contracts/trace-context.ts'
import { NOTIFY_PATH } from '../../messaging/notification-calls.ts'
import type { OutboxMessage } from '../../messaging/outbox.ts'
import type { Account, Announcement, Deposit, Payment } from './ledger.ts'

/**
 * How billing's announcements travel: the interaction styles, seen from billing. In `http` they are
 * calls to notification, else events. Their ids follow from what they announce, so the same outcome
 * announced again is the same message.
 */
export interface Companions extends TraceContext {
  readonly now: number
}

export function route(announcement: Announcement, at: Companions): OutboxMessage {
  if (announcement.event === 'DEPOSIT_REQUEST') {
    const { deposit } = announcement
    const body = { event: 'DEPOSIT_REQUEST', ...depositTerms(deposit) }
    return event('billing', body, { id: deposit.id, style: deposit.style }, at)
  }
  if (announcement.event === 'DEPOSIT_ACCEPTED') {
    const { deposit } = announcement
    const body = { event: 'DEPOSIT_ACCEPTED', ...depositTerms(deposit) }
    return tell(body, { id: `${deposit.id}/DEPOSIT_ACCEPTED`, style: deposit.style }, at)
  }
  const { event: name, payment } = announcement
  const { orderId, reason, style } = payment
  const accountId = payment.accountId as string
  const body = { event: name, orderId, accountId, ...refundOf(name, payment) }
  const told = name === 'PAYMENT_FAIL' && reason !== null && { reason }
  // The body has no amount, and order must not take any payment for its own.
  const taken = name === 'ORDER_PAID' && { amountMinor: payment.amountMinor as bigint }
  return tell(body, { id: `${orderId}/${name}`, style, ...told, ...taken }, at)
}

function depositTerms(deposit: Deposit) {
  return { accountId: deposit.accountId, value: toUnits(deposit.amountMinor) }
}

function refundOf(name: Announcement['event'], payment: Payment) {
  return name === 'PAYMENT_REFUNDED' && { value: toUnits(payment.amountMinor as bigint) }
}

/** The balance stream: after every change of an account, in every style. */
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

/** Where a refund was not order's own wish, order learns in `http` that its order is off. */
export function deleteOrder(payment: Payment, at: Companions): OutboxMessage {
  const { orderId, accountId, style } = payment
  return {
    carrier: 'http',
    destination: `/orders/${orderId}?profileId=${accountId}`,
    key: orderId,
    eventId: `${orderId}/DELETE`,
    body: '',
    headers: { [STYLE_HEADER]: style, ...traceOf(at) },
  }
}

type Body = { readonly event: string; readonly accountId: string }

function tell(body: Body, meta: EventMeta, at: Companions): OutboxMessage {
  if (meta.style !== 'http') return event('payment', body, meta, at)
  return {
    carrier: 'http',
    destination: NOTIFY_PATH,
    key: body.accountId,
    eventId: meta.id,
    body: JSON.stringify(body),
    headers: {
      'content-type': 'application/json',
      'idempotency-key': meta.id,
      [STYLE_HEADER]: meta.style,
      ...(meta.reason && { 'x-reason': meta.reason }),
      ...traceOf(at),
    },
  }
}

function event(topic: string, body: Body, meta: EventMeta, at: Companions): OutboxMessage {
  return {
    carrier: 'broker',
    destination: topic,
    key: body.accountId,
    eventId: meta.id,
    body: JSON.stringify(body),
    headers: eventHeaders(body.event, 'billing', at.now, { ...meta, ...traceOf(at) }),
  }
}
