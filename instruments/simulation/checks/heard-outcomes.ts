import type { Finding, Tables } from './tables.ts'

/**
 * The last notice about an order states its final outcome: paid, failed or refunded. No notice of a refund comes
 * before that of the payment, and no notice of a failure comes after it.
 */
export function checkHeardOutcomes({ orders, messages }: Tables): Finding[] {
  const notices = Map.groupBy(messages, ({ eventId }) => eventId.slice(0, eventId.lastIndexOf('/')))
  return orders.flatMap(({ id, profileId, state }) => {
    const events = (notices.get(id) ?? [])
      .filter(({ accountId }) => accountId === profileId)
      .map(({ event }) => event)
    if (state === 'PENDING' || ALLOWED[state].includes(events.join())) return []
    const heard = events.join(', then ') || 'nothing'
    const sentence = `is ${state}, ${HEARD} ${heard}`
    return [{ invariant: 'I5', subject: `order ${id}`, sentence }]
  })
}

/** `excuses.ts` recognizes the findings of this check by these words. */
export const HEARD = 'and its customer heard'

const ALLOWED: Readonly<Record<'APPROVED' | 'CANCELED', readonly string[]>> = {
  APPROVED: ['ORDER_PAID'],
  CANCELED: [
    'PAYMENT_FAIL',
    'ORDER_PAID,PAYMENT_REFUNDED',
    // The order service canceled the order before it learned that the payment had been taken.
    'PAYMENT_FAIL,ORDER_PAID,PAYMENT_REFUNDED',
  ],
}
