import { findPayments, type StoredPayment } from '../../services/billing/store.ts'
import type { OrderCommand } from '../../services/order/order.ts'
import { LOWEST_ID, PAGE_ROWS } from '../audit/pages.ts'
import type { Commands } from './commands.ts'
import type { Comparison, Difference, Repair } from './differences.ts'
import { announcedEvents, knownOrders, type Order, ordersAfter, paymentsAfter } from './store.ts'

/**
 * Compares orders with their payments. The billing service commits an outcome before the order service does.
 * Orders are therefore read first: an order read as settled already has its payment.
 */
export async function compareOrders(at: Comparison, commands: Commands): Promise<void> {
  const { databases, since } = at
  for (let after = LOWEST_ID; ; ) {
    const orders = await ordersAfter(databases.orders, after, since, PAGE_ROWS)
    if (orders.length === 0) return
    after = orders.at(-1)!.id
    const ids = orders.map(({ id }) => id)
    const payments = await findPayments(databases.billing, ids)
    const events = ids.flatMap((id) => [`${id}/ORDER_PAID`, `${id}/PAYMENT_REFUNDED`])
    const announced = await announcedEvents(databases.notification, events, since)
    for (const order of orders) {
      const payment = payments.get(order.id)
      const difference = payment
        ? differenceOf(order, payment, announced)
        : withoutPayment(order, announced)
      if (difference) await at.found(difference, repairOf(difference, order, payment, commands))
    }
  }
}

/**
 * The difference, if any, of an order without a payment. `compareLedger` has already compared the events in
 * `announced`.
 */
function withoutPayment(order: Order, announced: ReadonlySet<string>): Difference | undefined {
  const { id, state, profileId: accountId, priceMinor: amountMinor, isVoidWatched } = order
  const isAnnounced = (event: string) => announced.has(`${id}/${event}`)
  if (state === 'APPROVED' && !isAnnounced('ORDER_PAID')) {
    return { kind: 'PAYMENT_MISSING', id, accountId, amountMinor }
  }
  if (state !== 'CANCELED' || isVoidWatched || isAnnounced('PAYMENT_REFUNDED')) return undefined
  return isAnnounced('ORDER_PAID')
    ? { kind: 'REFUND_MISSING', id, accountId, amountMinor }
    : { kind: 'VOID_MISSING', id, accountId }
}

function differenceOf(
  order: Order,
  payment: StoredPayment,
  announced: ReadonlySet<string>,
): Difference | undefined {
  const { id, profileId, priceMinor } = order
  const common = {
    id,
    accountId: payment.accountId ?? profileId,
    ...(payment.amountMinor !== null && { amountMinor: payment.amountMinor }),
  }
  switch (order.state) {
    case 'PENDING':
      return { ...common, kind: 'ORDER_UNSETTLED', detail: `the payment is ${payment.state}` }
    case 'CANCELED': {
      const isKept = payment.state === 'PAID' && !order.isVoidWatched
      return isKept && !announced.has(`${id}/PAYMENT_REFUNDED`)
        ? { ...common, kind: 'REFUND_MISSING' }
        : undefined
    }
    case 'APPROVED': {
      if (payment.state === 'REFUNDED') return { ...common, kind: 'ORDER_NOT_CANCELED' }
      if (payment.state === 'PAID' && payment.amountMinor === priceMinor) return undefined
      // If the payment was announced, `compareLedger` has already reported the difference.
      if (payment.state !== 'PAID' && announced.has(`${id}/ORDER_PAID`)) return undefined
      return { ...common, kind: 'PAYMENT_CONFLICT', detail: `the payment is ${payment.state}` }
    }
  }
}

function repairOf(
  { kind }: Difference,
  order: Order,
  payment: StoredPayment | undefined,
  commands: Commands,
): Repair | undefined {
  const { id: orderId, profileId: accountId, priceMinor: amountMinor, style } = order
  switch (kind) {
    case 'PAYMENT_MISSING':
      return () => commands.pay({ orderId, accountId, amountMinor, style })
    case 'REFUND_MISSING':
    case 'VOID_MISSING':
      return () => commands.voidPayment(orderId, accountId, style)
    case 'ORDER_UNSETTLED':
    case 'ORDER_NOT_CANCELED': {
      const payer = payment!.accountId
      const command = commandOf(payment!)
      return () => commands.applyToOrder({ orderId, command, ...(payer && { profileId: payer }) })
    }
    default:
      return undefined
  }
}

/** The command that the order service applies when the billing service announces this outcome. */
function commandOf({ state, reason, amountMinor }: StoredPayment): OrderCommand {
  switch (state) {
    case 'PAID':
      return { type: 'approve', ...(amountMinor !== null && { paidMinor: amountMinor }) }
    case 'REFUSED':
      return { type: 'refuse', reason: reason ?? 'NOT_ENOUGH_MONEY' }
    case 'VOIDED':
      return { type: 'refuse', reason: reason ?? 'ORDER_CANCELED' }
    case 'REFUNDED':
      return { type: 'acknowledgeRefund' }
  }
}

/**
 * Finds payments of orders that are missing from the order database because they were placed after the time
 * to which it was restored.
 */
export async function compareForgottenOrders(at: Comparison, commands: Commands): Promise<void> {
  const { billing, orders } = at.databases
  for (let after = LOWEST_ID; ; ) {
    const payments = await paymentsAfter(billing, after, ['PAID'], at.since, PAGE_ROWS)
    if (payments.length === 0) return
    after = payments.at(-1)!.orderId
    const ids = payments.map(({ orderId }) => orderId)
    const known = await knownOrders(orders, ids)
    for (const { orderId: id, accountId, amountMinor, style } of payments) {
      if (known.has(id) || amountMinor === null) continue
      await at.found({ kind: 'ORDER_FORGOTTEN', id, accountId, amountMinor }, () =>
        commands.voidPayment(id, accountId, style),
      )
    }
  }
}
