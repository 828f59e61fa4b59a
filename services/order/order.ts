import type { Reason } from '../../contracts/events.ts'
import { MAX_AMOUNT_MINOR } from '../../contracts/money.ts'
import type { InteractionStyle } from '../../contracts/style.ts'

/**
 * The rules of an order. It starts PENDING and leaves that state once; a paid order can still be
 * given back. Whatever might have been paid for an order that is off is voided at billing, where a
 * void wins over a payment, whichever comes first.
 */
export interface Order {
  readonly id: string
  /** The customer; the account that pays has the same id. */
  readonly profileId: string
  readonly productQuantity: number
  readonly priceMinor: bigint
  readonly style: InteractionStyle
  readonly state: OrderState
  readonly reason: Reason | null
  /** The Idempotency-Key whose answer waits for the outcome. */
  readonly idempotencyKey: string | null
}

export type OrderState = 'PENDING' | 'APPROVED' | 'CANCELED'

export type OrderCommand =
  /** Paid; where it is known how much, that must be the price. */
  | { readonly type: 'approve'; readonly paidMinor?: bigint }
  /** Billing refused the payment: nothing was taken. */
  | { readonly type: 'refuse'; readonly reason: Reason }
  /** A call to billing got no answer: it may have taken the money or not. */
  | { readonly type: 'giveUpOnBilling' }
  | { readonly type: 'passDeadline' }
  | { readonly type: 'delete' }
  /** Billing gave the money back on its own account. */
  | { readonly type: 'acknowledgeRefund' }

/** What a change asks of others; `routing.ts` says how it travels in each style. */
export type OrderEffect = 'requestPayment' | 'voidPayment' | 'announceFailure'

export interface OrderDecision {
  readonly state: OrderState
  readonly reason: Reason | null
  readonly effects: readonly OrderEffect[]
}

export function decide(order: Order, command: OrderCommand): OrderDecision {
  switch (order.state) {
    case 'PENDING':
      return decidePending(command, order)
    case 'APPROVED':
      return decideApproved(command)
    case 'CANCELED':
      // Paid although it is off: the money goes back. Everything else has had its say already.
      return unchanged(order, command.type === 'approve' ? ['voidPayment'] : [])
  }
}

function decidePending(command: OrderCommand, { style, priceMinor }: Order): OrderDecision {
  switch (command.type) {
    case 'approve':
      return (command.paidMinor ?? priceMinor) === priceMinor
        ? { state: 'APPROVED', reason: null, effects: [] }
        : canceled('PAYMENT_MISMATCH', ['voidPayment'])
    case 'refuse':
      return canceled(command.reason, command.reason === 'PAYMENT_MISMATCH' ? ['voidPayment'] : [])
    case 'giveUpOnBilling':
      return canceled(
        'BILLING_UNREACHABLE',
        style === 'hybrid' ? ['voidPayment', 'announceFailure'] : ['voidPayment'],
      )
    case 'passDeadline':
      return canceled('DEADLINE_PASSED', ['voidPayment'])
    case 'delete':
      return canceled('DELETED', ['voidPayment'])
    case 'acknowledgeRefund':
      return canceled('REFUNDED', [])
  }
}

function decideApproved(command: OrderCommand): OrderDecision {
  switch (command.type) {
    case 'delete':
      return canceled('DELETED', ['voidPayment'])
    case 'acknowledgeRefund':
      return canceled('REFUNDED', [])
    case 'approve':
    case 'refuse':
    case 'giveUpOnBilling':
    case 'passDeadline':
      return { state: 'APPROVED', reason: null, effects: [] }
  }
}

const canceled = (reason: Reason, effects: readonly OrderEffect[]): OrderDecision => ({
  state: 'CANCELED',
  reason,
  effects,
})

const unchanged = (order: Order, effects: readonly OrderEffect[]): OrderDecision => ({
  state: order.state,
  reason: order.reason,
  effects,
})

/** What an order costs, in minor units; undefined where that is more than one payment may be. */
export function priceOf(productQuantity: number, unitPriceMinor: bigint): bigint | undefined {
  const priceMinor = unitPriceMinor * BigInt(productQuantity)
  return priceMinor > MAX_AMOUNT_MINOR ? undefined : priceMinor
}

/** What the customer who placed the order is told, once its outcome is known. */
export type OrderAnswer =
  | { readonly accepted: true }
  | {
      readonly accepted: false
      readonly code:
        | 'NOT_ENOUGH_MONEY'
        | 'ACCOUNT_NOT_FOUND'
        | 'BILLING_UNREACHABLE'
        | 'ORDER_CANCELED'
    }

export function answerOf(reason: Reason | null): OrderAnswer {
  switch (reason) {
    case null:
      return { accepted: true }
    case 'NOT_ENOUGH_MONEY':
    case 'ACCOUNT_NOT_FOUND':
    case 'BILLING_UNREACHABLE':
      return { accepted: false, code: reason }
    case 'ORDER_CANCELED':
    case 'DEADLINE_PASSED':
    case 'DELETED':
    case 'REFUNDED':
    case 'PAYMENT_MISMATCH':
      return { accepted: false, code: 'ORDER_CANCELED' }
  }
}
