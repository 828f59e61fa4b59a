import type { EventMeta, PaymentEvent, Received } from '../../contracts/events.ts'
import { traceOf } from '../../contracts/trace-context.ts'
import type { Handled } from '../../messaging/consumer/consumer.ts'
import type { Queryable } from '../../platform/database/database.ts'
import {
  type AddressedCommand,
  type Applied,
  applyCommands,
  type CommandContext,
} from './commands.ts'
import type { OrderCommand } from './order.ts'

/**
 * Handles incoming events: the results that the billing service publishes on the topic `payment` settle
 * orders. An event about an unknown order is skipped, because clients can also send payments to the billing
 * service directly, with order ids of their own.
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
  const applied = await applyCommands(tx, context, commands)
  const poison = new Map<Received<PaymentEvent>, string>()
  for (const [index, { event, command }] of addressed.entries()) {
    if (applied[index]?.kind !== 'not theirs') continue
    poison.set(event, `order ${command.orderId} does not belong to account ${command.profileId}`)
  }
  return { poison, afterCommit: () => afterCommit(applied, tx) }
}

function toCommand({ body, meta }: Received<PaymentEvent>): AddressedCommand | undefined {
  // Events that the order service itself published are skipped, because they say nothing about the decision
  // of the billing service.
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
