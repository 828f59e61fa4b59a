import type { Reason } from '../../contracts/events.ts'
import { MAX_AMOUNT_MINOR } from '../../contracts/money.ts'
import type { InteractionStyle } from '../../contracts/style.ts'

/**
 * The rules of an order. An order starts PENDING and leaves that state exactly once; a paid order can still
 * be refunded. If an order is canceled when the billing service may already have taken the money, its payment
 * is voided. In the billing service, a void wins over the payment whether it arrives before or after it. The
 * order service announces the cancellations that the billing service does not announce, so every customer is
 * notified.
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
  /** The Idempotency-Key under which the outcome is stored as the response. */
  readonly idempotencyKey: string | null
}

export type OrderState = 'PENDING' | 'APPROVED' | 'CANCELED'

export type OrderCommand =
  /** The billing service took the payment. If the amount is known, it must equal the price of the order. */
  | { readonly type: 'approve'; readonly paidMinor?: bigint }
  /** The billing service refused the payment and took no money. */
  | { readonly type: 'refuse'; readonly reason: Reason }
  /** A call to the billing service got no usable response, so it is unknown whether the money was taken. */
  | { readonly type: 'giveUpOnBilling' }
  | { readonly type: 'passDeadline' }
  | { readonly type: 'delete' }
  /** The billing service refunded the payment, although the order service had not requested a void. */
  | { readonly type: 'acknowledgeRefund' }
  /** The billing service has processed the void of a canceled order. */
  | { readonly type: 'confirmVoid' }

/** What a decision requires of other services; `routing.ts` turns it into a call or an event. */
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
      // A payment that arrives after the cancellation is voided. No other command affects a canceled order.
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
 * If the account is missing or has too little money, the billing service announces the refusal. After any
 * other refusal it may not have notified this customer, because a void arrived before the payment, or because
 * the payment stored for this order belongs to another account. The order service then announces the failure.
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

/** The price of an order in minor units, or undefined if it exceeds the largest payment allowed. */
export function priceOf(productQuantity: number, unitPriceMinor: bigint): bigint | undefined {
  const priceMinor = unitPriceMinor * BigInt(productQuantity)
  return priceMinor > MAX_AMOUNT_MINOR ? undefined : priceMinor
}

/** The response to the request that placed an order, once its outcome is known. */
export type OrderResponse =
  | { readonly accepted: true }
  | {
      readonly accepted: false
      readonly code:
        | 'NOT_ENOUGH_MONEY'
        | 'ACCOUNT_NOT_FOUND'
        | 'BILLING_UNREACHABLE'
        | 'ORDER_CANCELED'
    }

export function responseFor(reason: Reason | null): OrderResponse {
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
