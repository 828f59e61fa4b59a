import type { PaymentEvent, Received } from '../../contracts/events.ts'
import { toMinor } from '../../contracts/money.ts'
import { traceOf } from '../../contracts/trace-context.ts'
import type { Handled } from '../../messaging/consumer.ts'
import type { Queryable } from '../../platform/database.ts'
import { type CommandContext, type Told, writeMessages } from './commands.ts'
import type { Notice } from './message.ts'

/** Events in: every event of the topic `payment` is a message to its customer. */
export async function tellCustomers(
  tx: Queryable,
  context: CommandContext,
  events: readonly Received<PaymentEvent>[],
  afterCommit: (told: readonly Told[], committed: Queryable) => void,
): Promise<Handled<PaymentEvent>> {
  const told = await writeMessages(tx, context, events.map(toNotice))
  return { afterCommit: () => afterCommit(told, tx) }
}

function toNotice({ body, meta }: Received<PaymentEvent>): Notice {
  const source = 'event'
  const common = { eventId: meta.id, accountId: body.accountId, source, ...traceOf(meta) } as const
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
