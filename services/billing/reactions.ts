import type { BillingEvent, Received } from '../../contracts/events.ts'
import { toMinor } from '../../contracts/money.ts'
import { STYLE_OF_UNLABELED_EVENTS } from '../../contracts/style.ts'
import { traceOf } from '../../contracts/trace-context.ts'
import type { Handled } from '../../messaging/consumer/consumer.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { type Applied, applyCommands, type CommandContext } from './commands.ts'
import type { Command } from './ledger.ts'

/** Handles incoming events: the requests on the topic `billing`, settled as one batch. */
export async function settleRequests(
  tx: Queryable,
  context: CommandContext & { readonly newId: () => string },
  events: readonly Received<BillingEvent>[],
  afterCommit: (applied: readonly Applied[], committed: Queryable) => void,
): Promise<Handled<BillingEvent>> {
  const batch = events.map((event) => ({ command: toCommand(event, context) }))
  const applied = await applyCommands(tx, context, batch)
  const poison = new Map<Received<BillingEvent>, string>()
  for (const [index, event] of events.entries()) {
    const result = applied[index]
    if (result?.kind === 'applied' && result.outcome.kind === 'refused') {
      poison.set(event, `${event.body.event} was refused: ${result.outcome.code}`)
    }
  }
  return { poison, afterCommit: () => afterCommit(applied, tx) }
}

function toCommand(
  { body, meta }: Received<BillingEvent>,
  context: { readonly newId: () => string },
): Command {
  const { accountId } = body
  const common = {
    style: meta.style ?? STYLE_OF_UNLABELED_EVENTS,
    byMessage: true,
    ...traceOf(meta),
  }
  switch (body.event) {
    case 'ORDER_CREATED': {
      const { orderId } = body
      const amountMinor = toMinor(body.price)
      const terms = { orderId, accountId, amountMinor, deadlineMs: meta.deadlineMs }
      return { ...common, type: 'pay', paymentId: context.newId(), ...terms }
    }
    case 'ORDER_CANCELED': {
      const { orderId } = body
      return {
        ...common,
        type: 'void',
        paymentId: context.newId(),
        orderId,
        accountId,
        byOrder: true,
      }
    }
    case 'DEPOSIT_REQUEST': {
      const amountMinor = toMinor(body.value)
      return { ...common, type: 'deposit', depositId: meta.id, accountId, amountMinor }
    }
  }
}
