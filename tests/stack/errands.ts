import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { flowOf, type InteractionStyle } from '../../contracts/style.ts'
import type { Answer, Client, Problem } from '../e2e/client.ts'

/**
 * A request that must take effect once, under its own Idempotency-Key, however often it has to be repeated.
 * All deposits to an account have different amounts, which identify them in its ledger.
 */
export type Errand = (
  | { readonly kind: 'order'; readonly quantity: number }
  | { readonly kind: 'deposit'; readonly amount: number }
) & {
  readonly style: InteractionStyle
  readonly account: string
  readonly key: string
  readonly attempts: Attempt[]
}

/** One request. It has no response if the connection broke or the customer gave up. */
export interface Attempt {
  /** Milliseconds, by `performance.now()`. */
  readonly startedMs: number
  readonly endedMs: number
  readonly response: Answer<unknown> | undefined
}

/** The final response, on which the customer can rely. */
export type FinalResponse =
  | { readonly kind: 'accepted' | 'approved' | 'canceled'; readonly orderId: string }
  | { readonly kind: 'booked'; readonly balance: number }

/** Longer than any request can take. A test passes a shorter time if its customers should give up. */
const PATIENCE_MS = 120_000
const PAUSE_MS = 200
/**
 * 429: rejected under overload; 503: the server is down; 409: the first request is in flight or died with its
 * process.
 */
const TRANSIENT = [409, 429, 503]

/** Sends the request once more. */
export async function attemptOnce(
  client: Client,
  errand: Errand,
  patienceMs = PATIENCE_MS,
): Promise<Attempt> {
  const { style, key, account } = errand
  const options = { style, key, signal: AbortSignal.timeout(patienceMs) }
  const startedMs = performance.now()
  const sent: Promise<Answer<unknown>> =
    errand.kind === 'order'
      ? client.order(account, { ...options, quantity: errand.quantity })
      : client.call('POST', `/billing/account/${account}?amount=${errand.amount}`, options)
  const response = await sent.catch(() => undefined)
  const one = { startedMs, endedMs: performance.now(), response }
  errand.attempts.push(one)
  return one
}

/** Repeats the request until its response is final. Rejects for a response that is neither final nor transient. */
export async function finish(
  client: Client,
  errand: Errand,
  limits: { readonly limitMs: number; readonly patienceMs?: number },
): Promise<void> {
  const deadline = performance.now() + limits.limitMs
  while (finalResponseOf(errand) === undefined) {
    assert.ok(performance.now() < deadline, `no final response: ${describeErrand(errand)}`)
    const { response } = await attemptOnce(client, errand, limits.patienceMs)
    if (finalResponseOf(errand) !== undefined) return
    assert.ok(response === undefined || TRANSIENT.includes(response.status), describeErrand(errand))
    await sleep(PAUSE_MS)
  }
}

/** undefined until there is a final response. */
export function finalResponseOf({ kind, style, attempts }: Errand): FinalResponse | undefined {
  const response = attempts.at(-1)?.response
  if (response === undefined) return undefined
  const { status, body } = response
  if (kind === 'deposit') {
    return status === 200 ? { kind: 'booked', balance: body as number } : undefined
  }
  if (status === 201) {
    const isOutcome = flowOf(style).response === 'outcome'
    return { kind: isOutcome ? 'approved' : 'accepted', orderId: body as string }
  }
  const { code, orderId } = body as Partial<Problem>
  // Final: the order is canceled, and if its payment was taken after all, it is refunded.
  const isFinal = status === 402 || (status === 503 && code === 'BILLING_UNREACHABLE')
  return isFinal && orderId ? { kind: 'canceled', orderId } : undefined
}

export function describeErrand({ kind, style, key, attempts }: Errand): string {
  const descriptions = attempts.map(({ response, startedMs, endedMs }) => {
    const took = `${Math.round(endedMs - startedMs)} ms`
    return response
      ? `${response.status} ${JSON.stringify(response.body)} (${took})`
      : `no response (${took})`
  })
  return `${kind} in ${style} ${key} got ${descriptions.slice(-5).join(', then ')}`
}
