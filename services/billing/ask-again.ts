import type { Outbox } from '../../messaging/outbox.ts'
import { type Database, type Queryable, transact } from '../../platform/database.ts'
import type { BillingConfig } from './config.ts'
import { route } from './routing.ts'
import { takeDepositsToAsk } from './store.ts'

const LIMIT = 500
const MAX_ASK_AFTER_MS = 60_000

/**
 * A deposit that was accepted in `events` and has not come back through the topic is sent again,
 * under the same id: not even the loss of the whole log loses money that a customer was promised.
 * Returns how many, and the committed transaction.
 */
export function askForDeposits(
  database: Database,
  outbox: Outbox,
  now: number,
  config: BillingConfig,
): Promise<{ readonly deposits: number; readonly tx: Queryable }> {
  return transact(database, async (tx) => {
    const { DEPOSIT_ASK_AGAIN_AFTER_MS: askAfterMs } = config
    const deposits = await takeDepositsToAsk(tx, now, askAfterMs, MAX_ASK_AFTER_MS, LIMIT)
    const messages = deposits.map((deposit) =>
      route({ event: 'DEPOSIT_REQUEST', deposit }, { now }),
    )
    await outbox.enqueue(tx, messages, now)
    return { deposits: deposits.length, tx }
  })
}
