import type { EventMeta, PaymentEvent, Received } from '../../contracts/events.ts'
import { traceOf } from '../../contracts/trace-context.ts'
import type { Handled } from '../../messaging/consumer/consumer.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { type AddressedCommand, type Applied, type CommandContext, workOff } from './commands.ts'
import type { OrderCommand } from './order.ts'

/**
 * Events in: what billing says on the topic `payment` moves orders on. An order that we do not know
 * is none of ours: payments are made by REST, too, with ids of the caller's.
 */
export async function settleOrders(
  tx: Queryable,
  context: CommandContext,
  events: readonly Received<PaymentEvent>[],
  afterCommit: (applied: readonly Applied[], committed: Queryable) => void,
): Promise<Handled<PaymentEvent>> {
  const addressed = events.flatMap((event) => {
    const command = toCommand(event)
    return command ? [{ event, command }] : []
  })
  const commands = addressed.map(({ command }) => command)
  const { applied } = await workOff(tx, context, { placements: [], commands })
  const poison = new Map<Received<PaymentEvent>, string>()
  for (const [index, { event, command }] of addressed.entries()) {
    if (applied[index] !== 'not theirs') continue
    poison.set(event, `order ${command.orderId} does not belong to account ${command.profileId}`)
  }
  return { poison, afterCommit: () => afterCommit(applied, tx) }
}

function toCommand({ body, meta }: Received<PaymentEvent>): AddressedCommand | undefined {
  // Its own cancellations come back to order by the topic, and are not billing's word on the payment.
  if (body.event === 'DEPOSIT_ACCEPTED' || meta.isFromOrder) return undefined
  return {
    orderId: body.orderId,
    profileId: body.accountId,
    command: commandOf(body.event, meta),
    trace: traceOf(meta),
  }
}

function commandOf(
  event: 'ORDER_PAID' | 'PAYMENT_FAIL' | 'PAYMENT_REFUNDED',
  { reason, amountMinor }: EventMeta,
): OrderCommand {
  switch (event) {
    case 'ORDER_PAID':
      return { type: 'approve', ...(amountMinor && { paidMinor: amountMinor }) }
    case 'PAYMENT_FAIL':
      return { type: 'refuse', reason: reason ?? 'NOT_ENOUGH_MONEY' }
    case 'PAYMENT_REFUNDED':
      return { type: 'acknowledgeRefund' }
  }
}
