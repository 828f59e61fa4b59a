import type { Finding, Tables } from './tables.ts'

/**
 * Every customer hears the final outcome of every order, and hears it last: that it was paid, that it failed,
 * or that its payment was refunded. Nobody reads of a refund before the payment, or of a failure after it.
 */
export function checkHeardOutcomes({ orders, messages }: Tables): Finding[] {
  const heard = Map.groupBy(messages, ({ eventId }) => eventId.slice(0, eventId.lastIndexOf('/')))
  return orders.flatMap(({ id, profileId, state }) => {
    const events = (heard.get(id) ?? [])
      .filter(({ accountId }) => accountId === profileId)
      .map(({ event }) => event)
    if (state === 'PENDING' || ALLOWED[state].includes(events.join())) return []
    const said = events.join(', then ') || 'nothing'
    const sentence = `is ${state}, ${HEARD} ${said}`
    return [{ invariant: 'I5', subject: `order ${id}`, sentence }]
  })
}

export const HEARD = 'and its customer heard'

const ALLOWED: Readonly<Record<'APPROVED' | 'CANCELED', readonly string[]>> = {
  APPROVED: ['ORDER_PAID'],
  CANCELED: [
    'PAYMENT_FAIL',
    'ORDER_PAID,PAYMENT_REFUNDED',
    // Canceled by order while it did not know yet that billing had been paid.
    'PAYMENT_FAIL,ORDER_PAID,PAYMENT_REFUNDED',
  ],
}
