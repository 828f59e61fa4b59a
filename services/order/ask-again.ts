import type { Idempotency } from '../../messaging/idempotency.ts'
import type { Outbox } from '../../messaging/outbox.ts'
import { periodically } from '../../messaging/periodically.ts'
import { type Database, type Queryable, transact } from '../../platform/database.ts'
import type { Log, Runtime } from '../../platform/runtime.ts'
import type { Telemetry } from '../../platform/telemetry.ts'
import type { AddressedCommand, Applied } from './commands.ts'
import type { OrderConfig } from './config.ts'
import type { OrderEffect } from './order.ts'
import { route } from './routing.ts'
import { isAnyWatched, overdueOrders, takeOrdersToAsk } from './store.ts'

/**
 * The one repair path: an order that is PENDING for long asks billing again, in its own style; past
 * its deadline it is canceled and its payment voided, and a void by event is asked for again until
 * billing has said what became of the payment. Lost messages, a lost log, crashed services
 * and ambiguous time-outs all end here.
 */
export interface AskAgainOptions {
  readonly database: Database
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

export function startAskingAgain(options: AskAgainOptions): { close(): Promise<void> } {
  const { database, outbox, idempotency, runtime, log, telemetry, config, apply, wake } = options
  // What is watched from now on is due no sooner than that.
  const calmMs = Math.max(LOOK_MS, Math.min(config.ASK_AGAIN_AFTER_MS, config.ORDER_DEADLINE_MS))
  let expiredAt = Number.NEGATIVE_INFINITY

  async function ask(): Promise<void> {
    const now = runtime.now()
    const asked = await transact(database, async (tx) => {
      const take = (state: 'PENDING' | 'CANCELED') =>
        takeOrdersToAsk(tx, now, config.ASK_AGAIN_AFTER_MS, MAX_ASK_AFTER_MS, LOOK_LIMIT, state)
      const pending = await take('PENDING')
      const canceled = await take('CANCELED')
      const again = (effect: OrderEffect) => (one: (typeof pending)[number]) =>
        route(effect, one.order, one.order.reason, now, one.trace)
      const messages = [
        ...pending.map(again('requestPayment')),
        // The void goes first and wins; the request after it has billing say what became of both.
        ...canceled.flatMap((one) => [again('voidPayment')(one), again('requestPayment')(one)]),
      ]
      await outbox.enqueue(tx, messages)
      return { orders: [...pending, ...canceled], tx }
    })
    if (asked.orders.length === 0) return
    for (const { order } of asked.orders) {
      telemetry.count('trifold_asked_again_total', { style: order.style })
    }
    log.info({ orders: asked.orders.length }, 'billing is asked again')
    wake(asked.tx)
  }

  async function cancelOverdue(): Promise<void> {
    const overdue = await overdueOrders(database, runtime.now(), LOOK_LIMIT)
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
