import type { Idempotency } from '../../chassis/idempotency.ts'
import type { Outbox } from '../../messaging/outbox/outbox.ts'
import { periodically } from '../../platform/async/periodically.ts'
import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { DatabaseClock } from '../../platform/database/clock.ts'
import { type Database, type Queryable, transact } from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import type { AddressedCommand, Applied } from './commands.ts'
import type { OrderConfig } from './config.ts'
import type { OrderEffect } from './order.ts'
import { route } from './routing.ts'
import { isAnyWatched, type OrderToResend, overdueOrders, takeOrdersToResend } from './store.ts'

/**
 * The one repair path for lost messages, a lost broker log, crashed services and ambiguous timeouts. While an
 * order is PENDING, its payment request is resent to the billing service in the order's own style; past its
 * deadline, the order is canceled and its payment voided. The payment request of a canceled order is never
 * resent, but its void is, until the billing service confirms it. A canceled order whose void is still
 * unconfirmed after `VOID_ATTEMPTS` attempts is stuck: it is logged, and its void is resent once an hour.
 */
export interface ResendOptions {
  readonly database: Database
  readonly databaseClock: DatabaseClock
  readonly outbox: Outbox
  readonly idempotency: Idempotency
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry: Telemetry
  readonly config: OrderConfig
  readonly apply: (command: AddressedCommand) => Promise<Applied>
  readonly wake: (committed: Queryable) => void
}

/** Milliseconds between polls while any order is PENDING or waits for its void to be confirmed. */
const POLL_MS = 1_000
const POLL_LIMIT = 500
const MAX_RESEND_AFTER_MS = 60_000
/** Milliseconds between deletions of expired Idempotency-Keys. */
const EXPIRE_KEYS_MS = 60_000
const MAX_LOGGED_IDS = 20

export function startResends(options: ResendOptions): { close(): Promise<void> } {
  const { database, databaseClock, outbox, idempotency, runtime, log, telemetry } = options
  const { config, apply, wake } = options
  // The wait while there is nothing to resend or cancel: an order placed during it cannot become due any
  // sooner.
  const idlePollMs = Math.max(POLL_MS, Math.min(config.RESEND_AFTER_MS, config.ORDER_DEADLINE_MS))
  const schedule = {
    afterMs: config.RESEND_AFTER_MS,
    maxAfterMs: MAX_RESEND_AFTER_MS,
    stuckAfter: config.VOID_ATTEMPTS,
    limit: POLL_LIMIT,
  }
  let expiredAt = Number.NEGATIVE_INFINITY

  async function resendDue(): Promise<void> {
    const due = await transact(database, async (tx) => {
      const now = await databaseClock(tx)
      const take = (state: 'PENDING' | 'CANCELED') => takeOrdersToResend(tx, now, schedule, state)
      const [pending, canceled] = [await take('PENDING'), await take('CANCELED')]
      const messageFor =
        (effect: OrderEffect) =>
        ({ order, trace, deadlineMs }: OrderToResend) =>
          route(effect, order, order.reason, now, trace, deadlineMs)
      const isResent = ({ isInOutbox }: OrderToResend) => config.RESEND && !isInOutbox
      const messages = [
        ...pending.filter(isResent).map(messageFor('requestPayment')),
        ...canceled.filter(isResent).map(messageFor('voidPayment')),
      ]
      await outbox.enqueue(tx, messages)
      const stuck = canceled.filter(({ attempts }) => attempts === config.VOID_ATTEMPTS)
      return { orders: [...pending, ...canceled].filter(isResent), stuck, tx }
    })
    for (const { order } of due.orders) {
      telemetry.count('trifold_asked_again_total', { style: order.style })
    }
    if (due.orders.length > 0)
      log.info({ orders: due.orders.length }, 'resent requests to the billing service')
    if (due.stuck.length > 0) logStuck(due.stuck)
    wake(due.tx)
  }

  function logStuck(stuck: readonly OrderToResend[]): void {
    const orderIds = stuck.slice(0, MAX_LOGGED_IDS).map(({ order }) => order.id)
    const details = { orders: stuck.length, orderIds, attempts: config.VOID_ATTEMPTS }
    log.error(
      details,
      'canceled orders are stuck: the billing service does not confirm their voids',
    )
  }

  async function cancelOverdue(): Promise<void> {
    const overdue = await overdueOrders(database, await databaseClock(database), POLL_LIMIT)
    await Promise.all(
      overdue.map((order) => apply({ ...order, command: { type: 'passDeadline' } })),
    )
    if (overdue.length > 0)
      log.warn({ orders: overdue.length }, 'canceled orders that were past their deadline')
  }

  async function expireKeys(): Promise<void> {
    const now = runtime.monotonic()
    if (now - expiredAt < EXPIRE_KEYS_MS) return
    await idempotency.expire(database, config.IDEMPOTENCY_KEY_TTL_MS)
    expiredAt = now
  }

  return periodically(POLL_MS, runtime, log, async () => {
    await expireKeys()
    if (!(await isAnyWatched(database))) return idlePollMs
    await cancelOverdue()
    await resendDue()
  })
}
