import type { EventMeta, PaymentEvent, Reason } from '../../contracts/events.ts'
import { toMinor, toUnits } from '../../contracts/money.ts'
import { type TraceContext, traceOf } from '../../contracts/trace-context.ts'

/**
 * A notice to a customer about an event. The text of each notice is part of the contract, because clients
 * parse it.
 */
export type Notice = TraceContext & {
  /** The event's id. An event is stored as a notice only once, however much later it is repeated. */
  readonly eventId: string
  /** How the event arrived: in an HTTP call, which any client can make, or on the topic. */
  readonly source: 'call' | 'event'
  readonly accountId: string
} & (
    | { readonly event: 'ORDER_PAID'; readonly orderId: string }
    | { readonly event: 'PAYMENT_FAIL'; readonly orderId: string; readonly reason: Reason | null }
    | { readonly event: 'DEPOSIT_ACCEPTED'; readonly valueMinor: bigint }
    | { readonly event: 'PAYMENT_REFUNDED'; readonly orderId: string; readonly valueMinor: bigint }
  )

/** Makes the notice of an event that arrived in a call or on the topic. */
export function toNotice(
  body: PaymentEvent,
  meta: Pick<EventMeta, 'id' | 'reason' | keyof TraceContext>,
  source: Notice['source'],
): Notice {
  const { accountId } = body
  const common = { eventId: meta.id, accountId, source, ...traceOf(meta) } as const
  switch (body.event) {
    case 'ORDER_PAID':
      return { ...common, event: body.event, orderId: body.orderId }
    case 'PAYMENT_FAIL': {
      const { event, orderId } = body
      return { ...common, event, orderId, reason: meta.reason ?? null }
    }
    case 'DEPOSIT_ACCEPTED':
      return { ...common, event: body.event, valueMinor: toMinor(body.value) }
    case 'PAYMENT_REFUNDED': {
      const { event, orderId } = body
      return { ...common, event, orderId, valueMinor: toMinor(body.value) }
    }
  }
}

/** The subject of the letter for each event. */
export const SUBJECTS: Readonly<Record<Notice['event'], string>> = {
  ORDER_PAID: 'Your order is paid',
  PAYMENT_FAIL: 'Your order is not paid',
  DEPOSIT_ACCEPTED: 'Your deposit is accepted',
  PAYMENT_REFUNDED: 'Your order is refunded',
}

export function textOf(notice: Notice): string {
  const { accountId } = notice
  switch (notice.event) {
    case 'ORDER_PAID':
      return `ORDER ${notice.orderId} PAID SUCCESSFULLY`
    case 'PAYMENT_FAIL':
      return failureText(accountId, notice.orderId, notice.reason)
    case 'DEPOSIT_ACCEPTED':
      return `DEPOSIT ${toUnits(notice.valueMinor)} ACCEPTED ON ACCOUNT ${accountId}`
    case 'PAYMENT_REFUNDED':
      return `ORDER ${notice.orderId} REFUNDED: ${toUnits(notice.valueMinor)} ON ACCOUNT ${accountId}`
  }
}

function failureText(accountId: string, orderId: string, reason: Reason | null): string {
  switch (reason) {
    case null:
    case 'NOT_ENOUGH_MONEY':
      return `NOT ENOUGH MONEY on account ${accountId} for order ${orderId}`
    case 'ACCOUNT_NOT_FOUND':
      return `NO SUCH ACCOUNT ${accountId} for order ${orderId}`
    case 'BILLING_UNREACHABLE':
      return `ORDER ${orderId} NOT PAID: billing could not be reached`
    case 'ORDER_CANCELED':
    case 'DEADLINE_PASSED':
    case 'DELETED':
    case 'REFUNDED':
    case 'PAYMENT_MISMATCH':
      return `ORDER ${orderId} NOT PAID: it was canceled`
  }
}

/**
 * Whether the message stored under the event's id says the same as this notice. The billing and order
 * services may announce the failure of one payment with different reasons; such messages count as the same.
 * So does a message whose text was removed, because its text can no longer be compared.
 */
export function isAbout(
  message: { readonly accountId: string; readonly event: string; readonly text: string },
  notice: Notice,
): boolean {
  if (message.accountId !== notice.accountId || message.event !== notice.event) return false
  if (notice.event === 'PAYMENT_FAIL' && message.text.includes(notice.orderId)) return true
  return message.text === '' || message.text === textOf(notice)
}

/**
 * The id under which this notice is stored if another notice already has the event's id. The id contains a
 * line break, which no header can contain, so no caller can take it in advance.
 */
export function ownId(notice: Notice): string {
  const { eventId, accountId, event } = notice
  const orderId = 'orderId' in notice ? notice.orderId : ''
  const value = 'valueMinor' in notice ? notice.valueMinor : ''
  return `${eventId}\n${accountId}/${event}/${orderId}/${value}`
}
