import type { Settings } from '../world/deployment.ts'
import type { Add, Tables } from './tables.ts'

/** The times and faults of a run that decide how late an order may be settled. */
export interface Times {
  readonly settings: Pick<Settings, 'orderDeadlineMs' | 'resendAfterMs'>
  /** When faults stopped. */
  readonly healedMs: number
  /** Names of the faults that happened. */
  readonly faults: readonly string[]
}

/** The longest time from a due resend to the outcome, including waits for leases and frozen processes. */
const OUTCOME_MS = 20_000
/**
 * How late the order service may notice a deadline: it polls once a second, and some polls or their commits
 * can fail.
 */
const POLLS_MS = 5_000
/**
 * How far a service's idea of the database's clock may be off: the service reads that clock once a second,
 * and its own clock may be changed between two reads.
 */
export const CLOCK_ERROR_MS = 1_000
/** Faults that can keep the order service from polling for longer than `POLLS_MS`. */
const KEEPS_ORDER_DOWN = /^(crash|freeze|hang|service down|database down|conflicts)/

/**
 * Orders are repaired in time. An order is canceled at its deadline, not earlier or later, and is never paid
 * after it. Once faults have stopped, a resend must settle an order before its deadline cancels it.
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
    if (!isOrderDisturbed && !isReversed && lastedMs > orderDeadlineMs + POLLS_MS) {
      add(`order ${id}`, `was settled after ${lastedMs} ms as ${state} ${reason ?? ''}`, 'I4')
    }
    if (reason === 'DEADLINE_PASSED' && lastedMs < orderDeadlineMs - CLOCK_ERROR_MS) {
      add(`order ${id}`, `passed its deadline of ${orderDeadlineMs} ms after ${lastedMs} ms`, 'I4')
    }
    const paid = payments.get(id)
    const isTaken = paid?.state === 'PAID' || paid?.state === 'REFUNDED'
    const lateMs = isTaken ? paid.created.getTime() - createdMs - orderDeadlineMs : 0
    if (lateMs > CLOCK_ERROR_MS)
      add(`order ${id}`, `was paid ${lateMs} ms after its deadline`, 'I4')
    // Resend intervals double, so the next resend comes before the order is twice as old as when faults stopped.
    const ageMs = Math.max(0, healedMs - createdMs)
    const resentMs = 2 * (ageMs + resendAfterMs) + OUTCOME_MS
    if (reason === 'DEADLINE_PASSED' && orderDeadlineMs > resentMs) {
      add(`order ${id}`, 'passed its deadline although a resend had time to settle it', 'I4')
    }
  }
}
