import type { Idempotency } from '../../messaging/idempotency.ts'
import type { Outbox } from '../../messaging/outbox.ts'
import { periodically } from '../../messaging/periodically.ts'
import { type Database, type Queryable, transact } from '../../platform/database.ts'
import type { Log, Runtime } from '../../platform/runtime.ts'
import type { AddressedCommand, Applied } from './commands.ts'
import type { OrderConfig } from './config.ts'
import { route } from './routing.ts'
import { overdueOrders, takeOrdersToAsk } from './store.ts'

/**
 * The one repair path: an order that is PENDING for long asks billing again, in its own style; past
 * its deadline it is canceled and its payment voided. Lost messages, a lost log, crashed services
 * and ambiguous time-outs all end here.
 */
export interface AskAgainOptions {
  readonly database: Database
  readonly outbox: Outbox
  readonly idempotency: Idempotency
  readonly runtime: Runtime
  readonly log: Log
  readonly config: OrderConfig
  readonly apply: (command: AddressedCommand) => Promise<Applied>
  readonly wake: (committed: Queryable) => void
}

const LOOK_MS = 1_000
const LOOK_LIMIT = 500
const MAX_ASK_AFTER_MS = 60_000
const EXPIRE_MS = 60_000

export function startAskingAgain(options: AskAgainOptions): { close(): Promise<void> } {
  const { database, outbox, idempotency, runtime, log, config, apply, wake } = options
  let expiredAt = 0

  async function ask(): Promise<void> {
    const now = runtime.now()
    const asked = await transact(database, async (tx) => {
      const { ASK_AGAIN_AFTER_MS } = config
      const orders = await takeOrdersToAsk(
        tx,
        now,
        ASK_AGAIN_AFTER_MS,
        MAX_ASK_AFTER_MS,
        LOOK_LIMIT,
      )
      const messages = orders.map((order) => route('requestPayment', order, null, now))
      await outbox.enqueue(tx, messages, now)
      return { orders: orders.length, tx }
    })
    if (asked.orders === 0) return
    log.info({ orders: asked.orders }, 'billing is asked again')
    wake(asked.tx)
  }

  async function cancelOverdue(): Promise<void> {
    const overdue = await overdueOrders(database, runtime.now(), LOOK_LIMIT)
    await Promise.all(
      overdue.map((orderId) => apply({ orderId, command: { type: 'passDeadline' } })),
    )
    if (overdue.length > 0) log.warn({ orders: overdue.length }, 'orders passed their deadline')
  }

  async function expireKeys(): Promise<void> {
    const now = runtime.now()
    if (now - expiredAt < EXPIRE_MS) return
    await idempotency.expire(database, now - config.IDEMPOTENCY_KEY_TTL_MS)
    expiredAt = now
  }

  return periodically(LOOK_MS, runtime, log, async () => {
    await cancelOverdue()
    await ask()
    await expireKeys()
  })
}
