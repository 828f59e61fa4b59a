import type { PaymentEvent, Received } from '../../contracts/events.ts'
import type { Handled } from '../../messaging/consumer/consumer.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { type CommandContext, type Told, writeMessages } from './commands.ts'
import { toNotice } from './message.ts'

/** Events in: every event of the topic `payment` is a message to its customer. */
export async function tellCustomers(
  tx: Queryable,
  context: CommandContext,
  events: readonly Received<PaymentEvent>[],
  afterCommit: (told: readonly Told[], committed: Queryable) => void,
): Promise<Handled<PaymentEvent>> {
  const notices = events.map(({ body, meta }) => toNotice(body, meta, 'event'))
  const told = await writeMessages(tx, context, notices)
  return { afterCommit: () => afterCommit(told, tx) }
}
