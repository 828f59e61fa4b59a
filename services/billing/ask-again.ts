import type { ServiceParts } from '../../chassis/service.ts'
import type { Outbox } from '../../messaging/outbox/outbox.ts'
import { periodically } from '../../platform/async/periodically.ts'
import type { DatabaseClock } from '../../platform/database/clock.ts'
import { type Database, type Queryable, transact } from '../../platform/database/database.ts'
import type { BillingConfig } from './config.ts'
import type { Deposit } from './ledger.ts'
import { requestDeposit } from './routing.ts'
import { isAnyRequested, takeDepositsToAsk } from './store.ts'

export type AskAgainOptions = Pick<ServiceParts, 'database' | 'runtime' | 'log' | 'telemetry'> & {
  readonly databaseClock: DatabaseClock
  readonly outbox: Outbox
  readonly config: BillingConfig
  readonly wake: (committed: Queryable) => void
}

/** How often it looks while there are deposits that were requested. */
const LOOK_MS = 1_000
const LIMIT = 500
const MAX_ASK_AFTER_MS = 60_000

export function startAskingAgain(options: AskAgainOptions): { close(): Promise<void> } {
  const { database, databaseClock, outbox, runtime, log, telemetry, config, wake } = options
  // What is requested from now on is due no sooner than that.
  const calmMs = Math.max(LOOK_MS, config.DEPOSIT_ASK_AGAIN_AFTER_MS)

  return periodically(LOOK_MS, runtime, log, async () => {
    if (!(await isAnyRequested(database))) return calmMs
    const now = await databaseClock(database)
    const { deposits, tx } = await askForDeposits(database, outbox, now, config)
    for (const { style } of deposits) telemetry.count('trifold_asked_again_total', { style })
    wake(tx)
  })
}

/**
 * Resends the requests of deposits that were promised to customers and are not booked yet, under the
 * same ids, so that not even losing the whole log loses money that a customer was promised. Returns
 * these deposits and the committed transaction.
 */
export function askForDeposits(
  database: Database,
  outbox: Outbox,
  now: number,
  config: BillingConfig,
): Promise<{ readonly deposits: readonly Deposit[]; readonly tx: Queryable }> {
  return transact(database, async (tx) => {
    const { DEPOSIT_ASK_AGAIN_AFTER_MS: askAfterMs } = config
    const deposits = await takeDepositsToAsk(tx, now, askAfterMs, MAX_ASK_AFTER_MS, LIMIT)
    const messages = deposits.map((deposit) => requestDeposit(deposit, { now }))
    await outbox.enqueue(tx, messages)
    return { deposits, tx }
  })
}
