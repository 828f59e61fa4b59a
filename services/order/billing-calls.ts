import { isReason, type Reason } from '../../contracts/events.ts'
import { type TraceContext, traceContextOf } from '../../contracts/trace-context.ts'
import { isUuid } from '../../contracts/uuid.ts'
import {
  attemptTimeoutMs,
  type Delivery,
  isFinalRejection,
  type OutboxRow,
} from '../../messaging/outbox/outbox.ts'
import type { Log } from '../../platform/async/runtime.ts'
import type { HttpClient, HttpResponse } from '../../platform/http/client.ts'
import type { OrderCommand } from './order.ts'
import { PAY_PATH } from './routing.ts'

/**
 * Makes the calls to the billing service that styles with payment by call (`http`, `hybrid`) put into the
 * outbox. The response to a payment request settles the order. If the response proves that the call had no
 * effect, the outbox row is retried until the order's deadline. If there is no usable response, the order is
 * canceled, and its void is retried until the billing service confirms it.
 */
export interface BillingCallsOptions {
  readonly http: HttpClient
  readonly billingUrl: string
  readonly timeoutMs: number
  readonly log: Log
  /** Applies the command that the billing service's response implies, and commits the change. */
  readonly settle: (orderId: string, command: OrderCommand, trace: TraceContext) => Promise<void>
  readonly isPending: (orderId: string) => Promise<boolean>
}

export function billingCalls(options: BillingCallsOptions) {
  const { http, billingUrl, timeoutMs, log, settle, isPending } = options

  async function post(row: OutboxRow): Promise<HttpResponse | undefined> {
    const url = `${billingUrl}${row.destination}`
    try {
      const call = { target: 'billing', method: 'POST', url } as const
      const withinMs = attemptTimeoutMs(row, timeoutMs)
      return await http({ ...call, headers: row.headers, body: row.body }, withinMs)
    } catch (error) {
      log.warn({ err: error, row: row.eventId }, 'the billing service did not respond')
      return undefined
    }
  }

  async function pay(row: OutboxRow): Promise<Delivery> {
    // The order may have been canceled since the previous attempt. Its void then waits behind this outbox
    // row.
    if (row.attempts > 0 && !(await isPending(row.key))) return { kind: 'done' }
    const answer = await post(row)
    const command = answer && commandFrom(answer)
    if (answer && isRunning(answer)) {
      return { kind: 'retry', error: 'the billing service is still processing the same payment' }
    }
    if (answer && command === undefined && hadNoEffect(answer)) {
      return {
        kind: 'retry',
        error: `the billing service rejected the call with status ${answer.status}`,
      }
    }
    await settle(row.key, command ?? { type: 'giveUpOnBilling' }, traceContextOf(row.headers))
    return { kind: 'done' }
  }

  async function voidPayment(row: OutboxRow): Promise<Delivery> {
    const answer = await post(row)
    if (answer === undefined) return { kind: 'retry', error: 'the billing service did not respond' }
    if (answer.status < 300 && isVoided(answer)) {
      await settle(row.key, { type: 'confirmVoid' }, traceContextOf(row.headers))
      return { kind: 'done' }
    }
    const error = `the billing service responded with status ${answer.status}`
    const isFinal = isFinalRejection(answer.status) && !isRunning(answer)
    return isFinal
      ? { kind: 'poison', reason: `${error}: ${answer.body}` }
      : { kind: 'retry', error }
  }

  return (row: OutboxRow): Promise<Delivery> =>
    row.destination === PAY_PATH ? pay(row) : voidPayment(row)
}

/**
 * The command that the response to a payment request implies for the order; undefined if the response proves
 * nothing.
 */
function commandFrom({ status, body }: HttpResponse): OrderCommand | undefined {
  if (status < 300) return isPaymentId(body) ? { type: 'approve' } : undefined
  const { code, reason } = problemOf(body)
  if (status === 402) return { type: 'refuse', reason: reason ?? 'NOT_ENOUGH_MONEY' }
  if (status === 404 && code === 'ACCOUNT_NOT_FOUND') {
    return { type: 'refuse', reason: 'ACCOUNT_NOT_FOUND' }
  }
  if (code === 'PAYMENT_MISMATCH') return { type: 'refuse', reason: code }
  if (code === 'PAYMENT_VOIDED') return { type: 'refuse', reason: reason ?? 'ORDER_CANCELED' }
  return undefined
}

/**
 * A 200 alone proves nothing, because a proxy could have sent it. Only a billing service responds with the id
 * of a payment: as a JSON string by the contract, or as the bare id, which a foreign billing service may
 * send.
 */
const isPaymentId = (body: string) => typeof parse(body) === 'string' || isUuid(body.trim())

const isRunning = ({ body }: HttpResponse): boolean =>
  problemOf(body).code === 'IDEMPOTENCY_KEY_IN_PROGRESS'

/**
 * Whether the call was rejected before the billing service acted on it: because of its caller or the request
 * rate (401, 403, 407, 429), or by a server that does not serve this path (3xx, 404, 405, 421).
 */
function hadNoEffect({ status }: HttpResponse): boolean {
  return (status >= 300 && status < 400) || [401, 403, 404, 405, 407, 421, 429].includes(status)
}

function isVoided({ body }: HttpResponse): boolean {
  const voided = parse(body) as { state?: unknown } | null | undefined
  return typeof voided?.state === 'string'
}

function problemOf(body: string): { code?: unknown; reason?: Reason } {
  const problem = parse(body) as { code?: unknown; reason?: unknown } | null | undefined
  const reason = problem?.reason
  return { code: problem?.code, ...(isReason(reason) && { reason }) }
}

/** Parses JSON. Returns undefined if the text is not JSON. */
function parse(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}
