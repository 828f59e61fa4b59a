import type { Letter } from '../../../apps/audit/findings.ts'
import { flowOf } from '../../../contracts/style.ts'
import {
  type Attempt,
  addressOf,
  type Intent,
  isFinal,
  type Operation,
} from '../world/customers.ts'
import { isReadable } from '../world/responses.ts'
import { CLOCK_ERROR_MS, checkPunctuality, type Times } from './punctuality.ts'
import { checkBalances } from './reported-balances.ts'
import type { Add, Finding, Tables } from './tables.ts'

/**
 * Compares the responses that customers got with the tables: every acknowledged request has its effect, every
 * effect has a request, and a repeated request got the same response.
 */
export function checkHistory(
  operations: readonly Operation[],
  tables: Tables,
  letters: readonly Letter[],
  times: Times,
): Finding[] {
  const found: Finding[] = []
  const add = (subject: string, sentence: string, invariant = 'history') =>
    found.push({ invariant, subject, sentence })
  for (const operation of operations) {
    checkResponses(operation, add)
    checkEffect(operation, tables, add)
  }
  checkCauses(operations, tables, add)
  checkBalances(operations, tables, add)
  checkLetters(operations, tables, letters, add)
  checkPunctuality(tables, times, add)
  return found
}

const UNIT_PRICE_MINOR = 6_500n

/** The response to a request that took effect or was rejected for good. */
interface FinalResponse {
  readonly status: number
  readonly body: unknown
}

const finalResponses = ({ intent, attempts }: Operation): FinalResponse[] =>
  attempts.flatMap((attempt) => {
    const { response } = attempt
    return isFinal(attempt) && response && isReadable(intent, response) ? [response] : []
  })

const nameOf = ({ intent, key }: Operation) => `${intent.kind}${key === undefined ? '' : ` ${key}`}`

/**
 * A key has one final response forever. No response has status 500, an unexpected status or a body outside the
 * contract.
 */
function checkResponses(operation: Operation, add: Add): void {
  if (operation.key !== undefined) {
    const texts = new Set(
      finalResponses(operation).map(({ status, body }) => `${status} ${withoutInstance(body)}`),
    )
    if (texts.size > 1) add(nameOf(operation), `got different responses: ${[...texts].join(' / ')}`)
  }
  for (const attempt of operation.attempts) {
    const { response } = attempt
    if (response === undefined) continue
    const got = `got ${response.status} ${JSON.stringify(response.body)}`
    const isExpected =
      !isFinal(attempt) || EXPECTED[operation.intent.kind].includes(response.status)
    if (response.status === 500 || !isExpected) add(nameOf(operation), got)
    else if (isFinal(attempt) && isRetryable(response.body))
      add(nameOf(operation), `${got}, which is final but says that it is retryable`)
    else if (!isReadable(operation.intent, response))
      add(nameOf(operation), `${got}, which does not match the contract`)
  }
}

/** A final response must not say that it is retryable: it is stored, so every retry would get it again. */
const isRetryable = (body: unknown) =>
  (body as { retryable?: boolean } | undefined)?.retryable === true

/** Leaves out `instance`, the id of the HTTP request, which differs between repeats. */
function withoutInstance(body: unknown): string {
  if (body === null || typeof body !== 'object') return JSON.stringify(body)
  const { instance: _, ...rest } = body as Record<string, unknown>
  return JSON.stringify(rest)
}

const EXPECTED: Readonly<Record<Intent['kind'], readonly number[]>> = {
  open: [200],
  deposit: [200],
  order: [201, 402, 404, 409, 503],
  delete: [200],
  pay: [200, 402],
  void: [200],
  contact: [200],
  'read balance': [200],
  'read order': [200],
  'list orders': [200],
  pry: [403],
  'reuse a key': [422],
}

function checkEffect(operation: Operation, tables: Tables, add: Add): void {
  const { intent } = operation
  for (const response of finalResponses(operation)) {
    switch (intent.kind) {
      case 'open':
        if (!tables.accounts.some(({ id }) => id === response.body)) {
          add(nameOf(operation), `was acknowledged, but there is no account ${response.body}`)
        }
        break
      case 'deposit':
        if (response.status === 200 && creditsOf(intent, tables) === 0) {
          add(nameOf(operation), `of ${intent.amountMinor} was acknowledged but is not booked`)
        }
        break
      case 'order':
        checkOrder(operation, response, intent, tables, add)
        break
      case 'pay':
        checkPayment(operation, response, intent, tables, add)
        break
      case 'delete': {
        const order = tables.orders.find(({ id }) => id === intent.orderId)
        if (order?.state !== 'CANCELED')
          add(nameOf(operation), `left order ${intent.orderId} ${order?.state}`)
        break
      }
      case 'void': {
        const { state } = response.body as { state?: string }
        const payment = tables.payments.find(({ orderId }) => orderId === intent.orderId)
        if (response.status === 200 && payment?.state !== state) {
          add(nameOf(operation), `got ${state}, but the payment is ${payment?.state}`)
        }
        break
      }
      case 'read order':
        checkView(operation, response, intent, tables, add)
        break
      default:
    }
  }
}

const creditsOf = (intent: { accountId: string; amountMinor: number }, { entries }: Tables) =>
  entries.filter(
    ({ kind, accountId, amountMinor }) =>
      kind === 'DEPOSIT' &&
      accountId === intent.accountId &&
      amountMinor === BigInt(intent.amountMinor),
  ).length

function checkOrder(
  operation: Operation,
  { status, body }: FinalResponse,
  intent: Intent & { kind: 'order' },
  tables: Tables,
  add: Add,
): void {
  const { code, orderId } = (body ?? {}) as { code?: string; orderId?: string }
  const id = status === 201 ? body : orderId
  const order = tables.orders.find((one) => one.id === id)
  if (order === undefined)
    return add(nameOf(operation), `got ${status}, but there is no order ${id}`)
  const { state, reason, created } = order
  const earliestMs = Math.min(...operation.attempts.map(({ sentMs }) => sentMs)) - CLOCK_ERROR_MS
  const latestMs = Math.max(...operation.attempts.map(({ doneMs }) => doneMs)) + CLOCK_ERROR_MS
  if (created.getTime() < earliestMs || created.getTime() > latestMs) {
    const interval = `${new Date(earliestMs).toISOString()} and ${new Date(latestMs).toISOString()}`
    add(nameOf(operation), `was created at ${created.toISOString()}, not between ${interval}`)
  }
  const is = `${state} ${reason ?? ''}`
  if (order.quantity !== intent.quantity)
    add(nameOf(operation), `is stored with quantity ${order.quantity}`)
  if (order.priceMinor !== UNIT_PRICE_MINOR * BigInt(intent.quantity)) {
    add(nameOf(operation), `with quantity ${intent.quantity} costs ${order.priceMinor}`)
  }
  if (status === 201 && flowOf(order.style).response === 'outcome') {
    const isReversed = state === 'CANCELED' && ['DELETED', 'REFUNDED'].includes(reason ?? '')
    if (state !== 'APPROVED' && !isReversed) add(nameOf(operation), `got 201 but is ${is}`)
  }
  if (status !== 201 && state !== 'CANCELED') add(nameOf(operation), `got ${code} but is ${is}`)
}

function checkPayment(
  operation: Operation,
  { status, body }: FinalResponse,
  intent: Intent & { kind: 'pay' },
  tables: Tables,
  add: Add,
): void {
  const { orderId } = (body ?? {}) as { orderId?: string }
  const payment = tables.payments.find(({ id }) => id === (status === 200 ? body : orderId))
  const isRight =
    payment?.accountId === intent.accountId && payment.amountMinor === BigInt(intent.amountMinor)
  if (!isRight) return add(nameOf(operation), `got ${status}, but its payment is not stored`)
  const states = status === 200 ? ['PAID', 'REFUNDED'] : ['REFUSED']
  if (!states.includes(payment.state))
    add(nameOf(operation), `got ${status} but is ${payment.state}`)
}

/** Once a customer has read the outcome of an order, it can only change by a deletion or a refund. */
function checkView(
  operation: Operation,
  { body }: FinalResponse,
  intent: Intent & { kind: 'read order' },
  tables: Tables,
  add: Add,
): void {
  const seen = (body as { state?: string }).state
  const order = tables.orders.find(({ id }) => id === intent.orderId)
  if (seen === 'PENDING' || seen === order?.state) return
  const isReversed = ['DELETED', 'REFUNDED'].includes(order?.reason ?? '')
  if (seen === 'APPROVED' && isReversed) return
  add(
    nameOf(operation),
    `returned order ${intent.orderId} as ${seen}, but it is ${order?.state} ${order?.reason}`,
  )
}

/**
 * An operation has at most one effect with a key. Without a key it has at most two effects per attempt,
 * because the network can deliver a call twice.
 */
function checkCauses(operations: readonly Operation[], tables: Tables, add: Add): void {
  const limits = new Map<string, number>()
  for (const { intent, key, attempts } of operations) {
    const what = effectOf(intent)
    const most = key === undefined ? 2 * attempts.length : 1
    if (what !== undefined) limits.set(what, (limits.get(what) ?? 0) + most)
  }
  const orderIds = new Set(tables.orders.map(({ id }) => id))
  const effects = [
    ...tables.accounts.map(() => 'open'),
    ...tables.deposits.map((deposit) => moneyOf('deposit', deposit)),
    ...tables.orders.map(({ quantity, profileId }) => quantityOf(quantity, profileId)),
    ...tables.payments
      .filter(({ orderId }) => !orderIds.has(orderId))
      .map((payment) => moneyOf('pay', payment)),
  ]
  for (const [what, same] of Map.groupBy(effects, (effect) => effect)) {
    const limit = limits.get(what) ?? 0
    if (same.length > limit) add(what, `took effect ${same.length} times, at most ${limit} allowed`)
  }
}

/**
 * The effect that an operation can have. Effects are traced back to operations by account and amount or
 * quantity.
 */
function effectOf(intent: Intent): string | undefined {
  if (intent.kind === 'open') return 'open'
  if (intent.kind === 'order') return quantityOf(intent.quantity, intent.accountId)
  return intent.kind === 'deposit' || intent.kind === 'pay'
    ? moneyOf(intent.kind, intent)
    : undefined
}

const quantityOf = (quantity: number, accountId: string) => `order of ${quantity} for ${accountId}`
const moneyOf = (
  kind: 'deposit' | 'pay',
  { amountMinor, accountId }: { amountMinor: number | bigint | null; accountId: string | null },
) => `${kind} of ${amountMinor} on ${accountId}`

/**
 * Every notice that was written after its customer had set a contact is sent as a letter to that address, and to no
 * other.
 */
function checkLetters(
  operations: readonly Operation[],
  { messages }: Tables,
  letters: readonly Letter[],
  add: Add,
): void {
  const sent = new Set<string>()
  for (const { messageId, recipient } of letters) {
    if (sent.has(messageId)) add(`letter ${messageId}`, 'was sent to several addresses', 'I7')
    sent.add(messageId)
    const of = messages.find(({ id }) => messageId === `<${id}@trifold>`)
    if (of && recipient !== addressOf(of.accountId)) {
      add(`letter ${messageId}`, `of ${of.accountId} went to ${recipient}`, 'I8')
    }
  }
  for (const { intent, attempts } of operations) {
    if (intent.kind !== 'contact') continue
    const { accountId } = intent
    const since = attempts.find(isGranted)?.doneMs ?? Number.POSITIVE_INFINITY
    for (const { id } of messages.filter(
      (message) => message.accountId === accountId && message.created.getTime() > since + CLOCKS_MS,
    )) {
      if (!sent.has(`<${id}@trifold>`)) add(`message ${id}`, 'was never sent as a letter', 'I7')
    }
  }
}

const isGranted = ({ response }: Attempt) => response?.status === 200

/** How far the clocks of two processes may differ. */
const CLOCKS_MS = 2_000
