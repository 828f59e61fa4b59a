import type { Reason } from '../../contracts/events.ts'
import { MAX_AMOUNT_MINOR } from '../../contracts/money.ts'
import type { InteractionStyle } from '../../contracts/style.ts'

/**
 * The rules of an order. It starts PENDING and leaves that state once; a paid order can still be
 * refunded. Whatever might have been paid for a canceled order is voided at billing, where a void
 * wins over a payment, whichever comes first. A cancellation that billing does not announce itself is
 * announced by order, so that every customer hears of it.
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
  /** Billing has processed the void of a canceled order. */
  | { readonly type: 'confirmVoid' }

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

function decidePending(command: OrderCommand, { priceMinor }: Order): OrderDecision {
  switch (command.type) {
    case 'approve':
      return (command.paidMinor ?? priceMinor) === priceMinor
        ? { state: 'APPROVED', reason: null, effects: [] }
        : canceled('PAYMENT_MISMATCH', ['voidPayment'])
    case 'refuse':
      return refused(command.reason)
    case 'giveUpOnBilling':
      return canceled('BILLING_UNREACHABLE', ['announceFailure', 'voidPayment'])
    case 'passDeadline':
      return canceled('DEADLINE_PASSED', ['announceFailure', 'voidPayment'])
    case 'delete':
      return canceled('DELETED', ['announceFailure', 'voidPayment'])
    case 'acknowledgeRefund':
      return canceled('REFUNDED', [])
    case 'confirmVoid':
      return { state: 'PENDING', reason: null, effects: [] }
  }
}

/**
 * Billing announces a refusal for lack of money or of an account. Any other one may concern a payment
 * of which the customer has heard nothing: a void that came first, or somebody else's payment.
 */
function refused(reason: Reason): OrderDecision {
  switch (reason) {
    case 'NOT_ENOUGH_MONEY':
    case 'ACCOUNT_NOT_FOUND':
      return canceled(reason, [])
    case 'PAYMENT_MISMATCH':
      return canceled(reason, ['announceFailure', 'voidPayment'])
    case 'ORDER_CANCELED':
    case 'BILLING_UNREACHABLE':
    case 'DEADLINE_PASSED':
    case 'DELETED':
    case 'REFUNDED':
      return canceled(reason, ['announceFailure'])
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
    case 'confirmVoid':
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
