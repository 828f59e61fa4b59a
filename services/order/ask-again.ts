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
import { isAnyWatched, type OrderToAsk, overdueOrders, takeOrdersToAsk } from './store.ts'

/**
 * The one repair path: an order that stays PENDING repeats its request to billing, in its own style;
 * past its deadline it is canceled and its payment voided. A canceled order repeats its void, and never
 * its request for payment, until billing confirms. Lost messages, a lost log, crashed services and
 * ambiguous time-outs all end here. An order whose void is not confirmed after a bounded number of
 * attempts is stuck: it is reported, and asked about once an hour.
 */
export interface AskAgainOptions {
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

/** How often it looks while orders are watched. */
const LOOK_MS = 1_000
const LOOK_LIMIT = 500
const MAX_ASK_AFTER_MS = 60_000
const EXPIRE_MS = 60_000
const MAX_LOGGED_IDS = 20

export function startAskingAgain(options: AskAgainOptions): { close(): Promise<void> } {
  const { database, databaseClock, outbox, idempotency, runtime, log, telemetry } = options
  const { config, apply, wake } = options
  // What is watched from now on is due no sooner than that.
  const calmMs = Math.max(LOOK_MS, Math.min(config.ASK_AGAIN_AFTER_MS, config.ORDER_DEADLINE_MS))
  const schedule = {
    afterMs: config.ASK_AGAIN_AFTER_MS,
    maxAfterMs: MAX_ASK_AFTER_MS,
    stuckAfter: config.VOID_ATTEMPTS,
    limit: LOOK_LIMIT,
  }
  let expiredAt = Number.NEGATIVE_INFINITY

  async function ask(): Promise<void> {
    const asked = await transact(database, async (tx) => {
      const now = await databaseClock(tx)
      const take = (state: 'PENDING' | 'CANCELED') => takeOrdersToAsk(tx, now, schedule, state)
      const [pending, canceled] = [await take('PENDING'), await take('CANCELED')]
      const again = (effect: OrderEffect) => (one: OrderToAsk) =>
        route(effect, one.order, one.order.reason, now, one.trace, one.deadlineMs)
      const isSent = (one: OrderToAsk) => config.ASK_AGAIN && !one.isInOutbox
      const messages = [
        ...pending.filter(isSent).map(again('requestPayment')),
        ...canceled.filter(isSent).map(again('voidPayment')),
      ]
      await outbox.enqueue(tx, messages)
      const stuck = canceled.filter(({ attempts }) => attempts === config.VOID_ATTEMPTS)
      return { orders: [...pending, ...canceled].filter(isSent), stuck, tx }
    })
    for (const { order } of asked.orders) {
      telemetry.count('trifold_asked_again_total', { style: order.style })
    }
    if (asked.orders.length > 0) log.info({ orders: asked.orders.length }, 'billing is asked again')
    if (asked.stuck.length > 0) reportStuck(asked.stuck)
    wake(asked.tx)
  }

  function reportStuck(stuck: readonly OrderToAsk[]): void {
    const orderIds = stuck.slice(0, MAX_LOGGED_IDS).map(({ order }) => order.id)
    const about = { orders: stuck.length, orderIds, attempts: config.VOID_ATTEMPTS }
    log.error(about, 'billing does not confirm the void of canceled orders: they are stuck')
  }

  async function cancelOverdue(): Promise<void> {
    const overdue = await overdueOrders(database, await databaseClock(database), LOOK_LIMIT)
    await Promise.all(
      overdue.map((order) => apply({ ...order, command: { type: 'passDeadline' } })),
    )
    if (overdue.length > 0) log.warn({ orders: overdue.length }, 'orders passed their deadline')
  }

  async function expireKeys(): Promise<void> {
    const now = runtime.monotonic()
    if (now - expiredAt < EXPIRE_MS) return
    await idempotency.expire(database, config.IDEMPOTENCY_KEY_TTL_MS)
    expiredAt = now
  }

  return periodically(LOOK_MS, runtime, log, async () => {
    await expireKeys()
    if (!(await isAnyWatched(database))) return calmMs
    await cancelOverdue()
    await ask()
  })
}
