import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { flowOf, type InteractionStyle } from '../../contracts/style.ts'
import type { Answer, Client, Problem } from '../e2e/client.ts'

/**
 * What a customer wants done once, under an Idempotency-Key of its own, however often he has to say
 * it. Deposits of one account all have different amounts, by which they are known in its ledger.
 */
export type Errand = (
  | { readonly kind: 'order'; readonly quantity: number }
  | { readonly kind: 'deposit'; readonly amount: number }
) & {
  readonly style: InteractionStyle
  readonly account: string
  readonly key: string
  readonly tries: Try[]
}

/** One request; without an answer where the connection broke or the customer gave it up. */
export interface Try {
  /** Of this process's clock, in milliseconds. */
  readonly begunMs: number
  readonly endedMs: number
  readonly answer: Answer<unknown> | undefined
}

/** What he may rely on from now on. */
export type Told =
  | { readonly kind: 'accepted' | 'approved' | 'canceled'; readonly orderId: string }
  | { readonly kind: 'booked'; readonly balance: number }

/** Longer than any request may take; whoever asks for less wants to see what then happens. */
const PATIENCE_MS = 120_000
const PAUSE_MS = 200
/** The door is closed, the server away, the first request still under way or gone with its process. */
const PASSING = [409, 429, 503]

/** Says it once more. */
export async function tryOnce(
  client: Client,
  errand: Errand,
  patienceMs = PATIENCE_MS,
): Promise<Try> {
  const { style, key, account } = errand
  const options = { style, key, signal: AbortSignal.timeout(patienceMs) }
  const begunMs = performance.now()
  const asked: Promise<Answer<unknown>> =
    errand.kind === 'order'
      ? client.order(account, { ...options, quantity: errand.quantity })
      : client.call('POST', `/billing/account/${account}?amount=${errand.amount}`, options)
  const answer = await asked.catch(() => undefined)
  const one = { begunMs, endedMs: performance.now(), answer }
  errand.tries.push(one)
  return one
}

/** Says it again and again until he is told what became of it; any other answer is a failure. */
export async function insist(
  client: Client,
  errand: Errand,
  limits: { readonly limitMs: number; readonly patienceMs?: number },
): Promise<void> {
  const deadline = performance.now() + limits.limitMs
  while (toldOf(errand) === undefined) {
    assert.ok(performance.now() < deadline, `never told: ${describeErrand(errand)}`)
    const { answer } = await tryOnce(client, errand, limits.patienceMs)
    if (toldOf(errand) !== undefined) return
    assert.ok(answer === undefined || PASSING.includes(answer.status), describeErrand(errand))
    await sleep(PAUSE_MS)
  }
}

/** undefined as long as nothing final was said. */
export function toldOf({ kind, style, tries }: Errand): Told | undefined {
  const answer = tries.at(-1)?.answer
  if (answer === undefined) return undefined
  const { status, body } = answer
  if (kind === 'deposit') {
    return status === 200 ? { kind: 'booked', balance: body as number } : undefined
  }
  if (status === 201) {
    const isOutcome = flowOf(style).response === 'outcome'
    return { kind: isOutcome ? 'approved' : 'accepted', orderId: body as string }
  }
  const { code, orderId } = body as Partial<Problem>
  // It stays so: the order was given up, and a payment that was made nevertheless is given back.
  const isFinal = status === 402 || (status === 503 && code === 'BILLING_UNREACHABLE')
  return isFinal && orderId ? { kind: 'canceled', orderId } : undefined
}

export function describeErrand({ kind, style, key, tries }: Errand): string {
  const said = tries.map(({ answer, begunMs, endedMs }) => {
    const took = `${Math.round(endedMs - begunMs)} ms`
    return answer
      ? `${answer.status} ${JSON.stringify(answer.body)} (${took})`
      : `nothing (${took})`
  })
  return `${kind} in ${style} ${key} was answered ${said.slice(-5).join(', then ')}`
}
