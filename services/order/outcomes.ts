import type { ServiceParts } from '../../chassis/service.ts'
import { inTurn } from '../../platform/async/coalesce.ts'
import { createWaiters, type Waiter } from '../../platform/async/waiters.ts'
import { createTeller } from '../../platform/database/tell-peers.ts'
import { findOrders, type StoredOrder } from './store.ts'

/** Requests that wait for what becomes of an order, whichever instance of the service settles it. */
export interface Outcomes {
  wait(orderId: string): Waiter<StoredOrder>
  /** Call after the commit that placed them. */
  placed(orders: readonly Pick<StoredOrder, 'id' | 'profileId'>[]): void
  /** Whether it is this owner's and cannot have been settled unheard of: then a read would tell nothing. */
  isPending(orderId: string, profileId: string): boolean
  /** Call after the commit that settled them. */
  settled(orders: readonly StoredOrder[]): void
  close(): void
}

type OutcomesParts = Pick<ServiceParts, 'database' | 'runtime' | 'log' | 'soleProcess'> & {
  /** Whether anybody but this instance could wait. */
  readonly hasPeers: () => boolean
}

/** Enough for those whose outcome is about to be waited for. */
const MAX_PENDING = 10_000
const CHANNEL = 'trifold_orders_settled'

export function createOutcomes({ soleProcess, ...parts }: OutcomesParts): Outcomes {
  const { database, runtime, log, hasPeers } = parts
  const waiters = createWaiters<StoredOrder>(runtime)
  /** Owners of the orders that were placed here and not settled here. */
  const pending = new Map<string, string>()
  const closing = new AbortController()
  const tell = createTeller({ ...parts, channel: CHANNEL, stopped: closing.signal })

  const look = inTurn(async () => {
    try {
      const waiting = waiters.keys()
      const orders = waiting.length > 0 ? await findOrders(database, waiting) : new Map()
      for (const order of orders.values() as Iterable<StoredOrder>) {
        if (order.state !== 'PENDING') waiters.resolve(order.id, order)
      }
    } catch (err) {
      log.debug({ err }, 'outcomes could not be looked for')
    }
  })

  const end = soleProcess ? () => undefined : database.listen(CHANNEL, () => void look())
  return {
    wait: waiters.wait,
    placed(orders) {
      for (const { id, profileId } of orders) {
        if (pending.size >= MAX_PENDING) pending.delete(pending.keys().next().value!)
        pending.set(id, profileId)
      }
    },
    isPending: (orderId, profileId) =>
      pending.get(orderId) === profileId && (soleProcess || !hasPeers()),
    settled(orders) {
      for (const order of orders) {
        pending.delete(order.id)
        waiters.resolve(order.id, order)
      }
      if (orders.length > 0 && !soleProcess && hasPeers()) tell()
    },
    close() {
      closing.abort()
      end()
    },
  }
}
