import type { ServiceParts } from '../../chassis/service.ts'
import { inTurn } from '../../platform/async/coalesce.ts'
import { createWaiters, type Waiter } from '../../platform/async/waiters.ts'
import { createNotifier } from '../../platform/database/notifier.ts'
import { findOrders, type StoredOrder } from './store.ts'

/** Lets requests wait for the outcome of an order, even if another instance of the service settles it. */
export interface Outcomes {
  wait(orderId: string): Waiter<StoredOrder>
  /** Call after the commit that placed these orders. */
  placed(orders: readonly Pick<StoredOrder, 'id' | 'profileId'>[]): void
  /**
   * Whether the order belongs to this profile and is certainly PENDING, because only this instance could have
   * settled it. If true, there is no need to read the order from the database.
   */
  isPending(orderId: string, profileId: string): boolean
  /** Call after the commit that settled these orders. */
  settled(orders: readonly StoredOrder[]): void
  close(): void
}

type OutcomesParts = Pick<ServiceParts, 'database' | 'runtime' | 'log' | 'soleProcess'> & {
  /** Whether other instances of the service are running. */
  readonly hasPeers: () => boolean
}

/**
 * How many of the most recently placed orders `isPending` remembers. Older orders are read from the database.
 */
const MAX_PENDING = 10_000
const CHANNEL = 'trifold_orders_settled'

export function createOutcomes({ soleProcess, ...parts }: OutcomesParts): Outcomes {
  const { database, runtime, log, hasPeers } = parts
  const waiters = createWaiters<StoredOrder>(runtime)
  /** The profiles of orders that this instance placed and has not settled, by order id. */
  const pending = new Map<string, string>()
  const closing = new AbortController()
  const tell = createNotifier({ ...parts, channel: CHANNEL, stopped: closing.signal })

  const readOutcomes = inTurn(async () => {
    try {
      const waiting = waiters.keys()
      const orders = waiting.length > 0 ? await findOrders(database, waiting) : new Map()
      for (const order of orders.values() as Iterable<StoredOrder>) {
        if (order.state !== 'PENDING') waiters.resolve(order.id, order)
      }
    } catch (err) {
      log.debug({ err }, 'failed to read the outcomes of orders')
    }
  })

  const stopListening = soleProcess
    ? () => undefined
    : database.listen(CHANNEL, () => void readOutcomes())
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
      stopListening()
    },
  }
}
