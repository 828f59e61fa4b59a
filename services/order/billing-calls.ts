import { isReason, type Reason } from '../../contracts/events.ts'
import { type TraceContext, traceContextOf } from '../../contracts/trace-context.ts'
import { type Delivery, isFinalRefusal, type OutboxRow } from '../../messaging/outbox.ts'
import type { HttpAnswer, HttpClient } from '../../platform/http-client.ts'
import type { Log } from '../../platform/runtime.ts'
import type { OrderCommand } from './order.ts'
import { PAY_PATH } from './routing.ts'

/**
 * Calls out, in `http` and `hybrid`: rows of the outbox that go to billing over HTTP. A payment
 * either gets its outcome or the order is given up, whose void then goes on until billing has it.
 */
export interface BillingCallsOptions {
  readonly http: HttpClient
  readonly billingUrl: string
  readonly timeoutMs: number
  readonly log: Log
  /** Commits what the answer means for the order. */
  readonly settle: (orderId: string, command: OrderCommand, trace: TraceContext) => Promise<void>
}

export function billingCalls(options: BillingCallsOptions) {
  const { http, billingUrl, timeoutMs, log, settle } = options

  async function post(row: OutboxRow): Promise<HttpAnswer | undefined> {
    const url = `${billingUrl}${row.destination}`
    try {
      const call = { target: 'billing', method: 'POST', url } as const
      return await http({ ...call, headers: row.headers, body: row.body }, timeoutMs)
    } catch (error) {
      log.warn({ err: error, row: row.eventId }, 'billing gave no answer')
      return undefined
    }
  }

  async function pay(row: OutboxRow): Promise<Delivery> {
    const answer = await post(row)
    const command = answer && meaningOf(answer)
    if (answer && isRunning(answer)) {
      return { kind: 'retry', error: 'the same payment is still running' }
    }
    await settle(row.key, command ?? { type: 'giveUpOnBilling' }, traceContextOf(row.headers))
    return { kind: 'done' }
  }

  async function voidPayment(row: OutboxRow): Promise<Delivery> {
    const answer = await post(row)
    if (answer === undefined) return { kind: 'retry', error: 'billing gave no answer' }
    if (answer.status < 300) return { kind: 'done' }
    const error = `billing answered ${answer.status}`
    const final = isFinalRefusal(answer.status) && !isRunning(answer)
    return final ? { kind: 'poison', reason: `${error}: ${answer.body}` } : { kind: 'retry', error }
  }

  return (row: OutboxRow): Promise<Delivery> =>
    row.destination === PAY_PATH ? pay(row) : voidPayment(row)
}

/** What an answer to a payment says about its order; undefined where it says nothing certain. */
function meaningOf({ status, body }: HttpAnswer): OrderCommand | undefined {
  if (status < 300) return { type: 'approve' }
  const { code, reason } = problemOf(body)
  if (status === 402) return { type: 'refuse', reason: reason ?? 'NOT_ENOUGH_MONEY' }
  if (status === 404 && code === 'ACCOUNT_NOT_FOUND') {
    return { type: 'refuse', reason: 'ACCOUNT_NOT_FOUND' }
  }
  if (code === 'PAYMENT_MISMATCH') return { type: 'refuse', reason: code }
  if (code === 'PAYMENT_VOIDED') return { type: 'refuse', reason: reason ?? 'ORDER_CANCELED' }
  return undefined
}

const isRunning = ({ body }: HttpAnswer): boolean =>
  problemOf(body).code === 'IDEMPOTENCY_KEY_IN_PROGRESS'

function problemOf(body: string): { code?: unknown; reason?: Reason } {
  try {
    const problem = JSON.parse(body) as { code?: unknown; reason?: unknown } | null
    const reason = problem?.reason
    return { code: problem?.code, ...(isReason(reason) && { reason }) }
  } catch {
    return {}
  }
}
