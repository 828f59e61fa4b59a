import type { ServiceParts } from '../../chassis/service.ts'
import type { Outbox } from '../../messaging/outbox/outbox.ts'
import { periodically } from '../../platform/async/periodically.ts'
import type { DatabaseClock } from '../../platform/database/clock.ts'
import { type Database, type Queryable, transact } from '../../platform/database/database.ts'
import type { BillingConfig } from './config.ts'
import type { Deposit } from './ledger.ts'
import { requestDeposit } from './routing.ts'
import { isAnyRequested, takeDepositsToResend } from './store.ts'

export type ResendOptions = Pick<ServiceParts, 'database' | 'runtime' | 'log' | 'telemetry'> & {
  readonly databaseClock: DatabaseClock
  readonly outbox: Outbox
  readonly config: BillingConfig
  readonly wake: (committed: Queryable) => void
}

/** Milliseconds between polls while any requested deposit is not booked yet. */
const POLL_MS = 1_000
const LIMIT = 500
const MAX_RESEND_AFTER_MS = 60_000

export function startResends(options: ResendOptions): { close(): Promise<void> } {
  const { database, databaseClock, outbox, runtime, log, telemetry, config, wake } = options
  // The wait while every requested deposit is booked: a deposit requested during it cannot become due any
  // sooner.
  const idlePollMs = Math.max(POLL_MS, config.DEPOSIT_RESEND_AFTER_MS)

  return periodically(POLL_MS, runtime, log, async () => {
    if (!(await isAnyRequested(database))) return idlePollMs
    const now = await databaseClock(database)
    const { deposits, tx } = await resendDeposits(database, outbox, now, config)
    for (const { style } of deposits) telemetry.count('trifold_asked_again_total', { style })
    wake(tx)
  })
}

/**
 * Resends, under the same ids, the requests for deposits that customers were promised and that are not booked
 * yet, so that promised money survives even the loss of the whole broker log. Returns these deposits and the
 * committed transaction.
 */
export function resendDeposits(
  database: Database,
  outbox: Outbox,
  now: number,
  config: BillingConfig,
): Promise<{ readonly deposits: readonly Deposit[]; readonly tx: Queryable }> {
  return transact(database, async (tx) => {
    const { DEPOSIT_RESEND_AFTER_MS: resendAfterMs } = config
    const deposits = await takeDepositsToResend(tx, now, resendAfterMs, MAX_RESEND_AFTER_MS, LIMIT)
    const messages = deposits.map((deposit) => requestDeposit(deposit, { now }))
    await outbox.enqueue(tx, messages)
    return { deposits, tx }
  })
}
