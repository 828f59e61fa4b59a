import type { Settings } from '../world/deployment.ts'
import type { Add, Tables } from './tables.ts'

export interface Times {
  readonly settings: Pick<Settings, 'orderDeadlineMs' | 'resendAfterMs'>
  /** When faults stopped. */
  readonly healedMs: number
  /** The names of the faults that happened. */
  readonly faults: readonly string[]
}

/** So long it may take from a time to ask again to the outcome, leases and frozen processes included. */
const OUTCOME_MS = 20_000
/** Order looks once a second; a look that fails, or its commit, is made up for by one of the next. */
const LOOKS_MS = 5_000
/** Services read the database's clock once a second, and may be so far off when their own is set meanwhile. */
export const CLOCK_ERROR_MS = 1_000
/** What keeps order from looking at all. */
const KEEPS_ORDER_DOWN = /^(crash|freeze|hang|service down|database down|conflicts)/

/**
 * What is repaired is repaired in time: an order is canceled at its deadline and not later; and once
 * faults have stopped, asking again brings its outcome, rather than the deadline its end.
 */
export function checkPunctuality(tables: Tables, times: Times, add: Add): void {
  const { settings, healedMs, faults } = times
  const { orderDeadlineMs, resendAfterMs } = settings
  const payments = new Map(tables.payments.map((payment) => [payment.orderId, payment]))
  const isOrderDisturbed = faults.some((name) => KEEPS_ORDER_DOWN.test(name))
  for (const { id, state, reason, created, updated } of tables.orders) {
    const createdMs = created.getTime()
    const lastedMs = updated.getTime() - createdMs
    const isReversed = reason === 'DELETED' || reason === 'REFUNDED'
    if (!isOrderDisturbed && !isReversed && lastedMs > orderDeadlineMs + LOOKS_MS) {
      add(`order ${id}`, `was settled after ${lastedMs} ms, as ${state} ${reason ?? ''}`, 'I4')
    }
    if (reason === 'DEADLINE_PASSED' && lastedMs < orderDeadlineMs - CLOCK_ERROR_MS) {
      add(`order ${id}`, `passed its deadline of ${orderDeadlineMs} ms after ${lastedMs} ms`, 'I4')
    }
    const paid = payments.get(id)
    const isTaken = paid?.state === 'PAID' || paid?.state === 'REFUNDED'
    const lateMs = isTaken ? paid.created.getTime() - createdMs - orderDeadlineMs : 0
    if (lateMs > CLOCK_ERROR_MS)
      add(`order ${id}`, `was paid ${lateMs} ms after its deadline`, 'I4')
    // The intervals double, so the next time to ask is no farther away than the order is old.
    const ageMs = Math.max(0, healedMs - createdMs)
    const askedMs = 2 * (ageMs + resendAfterMs) + OUTCOME_MS
    if (reason === 'DEADLINE_PASSED' && orderDeadlineMs > askedMs) {
      add(`order ${id}`, 'passed its deadline although billing could be asked', 'I4')
    }
  }
}
