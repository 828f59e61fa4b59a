import type { PaymentEvent, Received } from '../../contracts/events.ts'
import type { Handled } from '../../messaging/consumer/consumer.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { applyCommands, type CommandContext, type Written } from './commands.ts'
import { toNotice } from './message.ts'

/** Handles incoming events: every event on the topic `payment` becomes a notice to the customer. */
export async function notifyCustomers(
  tx: Queryable,
  context: CommandContext,
  events: readonly Received<PaymentEvent>[],
  afterCommit: (written: readonly Written[], committed: Queryable) => void,
): Promise<Handled<PaymentEvent>> {
  const notices = events.map(({ body, meta }) => toNotice(body, meta, 'event'))
  const written = await applyCommands(tx, context, notices)
  return { afterCommit: () => afterCommit(written, tx) }
}
