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
 * What customers were told, against the tables: every acknowledged request has its effect, every
 * effect has a request, and the same request, repeated, was answered the same.
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
    checkAnswers(operation, add)
    checkEffect(operation, tables, add)
  }
  checkCauses(operations, tables, add)
  checkBalances(operations, tables, add)
  checkLetters(operations, tables, letters, add)
  checkPunctuality(tables, times, add)
  return found
}

const UNIT_PRICE_MINOR = 6_500n

/** What a request was answered that took effect, or was refused for good. */
interface Told {
  readonly status: number
  readonly body: unknown
}

const finals = ({ intent, attempts }: Operation): Told[] =>
  attempts.flatMap((attempt) => {
    const { response } = attempt
    return isFinal(attempt) && response && isReadable(intent, response) ? [response] : []
  })

const nameOf = ({ intent, key }: Operation) => `${intent.kind}${key === undefined ? '' : ` ${key}`}`

/** The same key has one answer, for ever; and nobody is told of faults of our own making. */
function checkAnswers(operation: Operation, add: Add): void {
  const answers = finals(operation)
  if (operation.key !== undefined) {
    const texts = new Set(answers.map(({ status, body }) => `${status} ${withoutInstance(body)}`))
    if (texts.size > 1)
      add(nameOf(operation), `was answered differently: ${[...texts].join(' / ')}`)
  }
  for (const attempt of operation.attempts) {
    const { response } = attempt
    if (response === undefined) continue
    const is = `was answered ${response.status} ${JSON.stringify(response.body)}`
    const isExpected =
      !isFinal(attempt) || EXPECTED[operation.intent.kind].includes(response.status)
    if (response.status === 500 || !isExpected) add(nameOf(operation), is)
    else if (isFinal(attempt) && isRetryable(response.body))
      add(nameOf(operation), `${is}, for good`)
    else if (!isReadable(operation.intent, response))
      add(nameOf(operation), `${is}, which nobody can read`)
  }
}

/** A final answer is stored, so a retry would be told the same. */
const isRetryable = (body: unknown) =>
  (body as { retryable?: boolean } | undefined)?.retryable === true

/** The id of the request differs, and is not part of the answer. */
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
  for (const told of finals(operation)) {
    switch (intent.kind) {
      case 'open':
        if (!tables.accounts.some(({ id }) => id === told.body)) {
          add(nameOf(operation), `was acknowledged, but there is no account ${told.body}`)
        }
        break
      case 'deposit':
        if (told.status === 200 && creditsOf(intent, tables) === 0) {
          add(
            nameOf(operation),
            `of ${intent.amountMinor} was acknowledged and is not on its account`,
          )
        }
        break
      case 'order':
        checkOrder(operation, told, intent, tables, add)
        break
      case 'pay':
        checkPayment(operation, told, intent, tables, add)
        break
      case 'delete': {
        const order = tables.orders.find(({ id }) => id === intent.orderId)
        if (order?.state !== 'CANCELED')
          add(nameOf(operation), `left order ${intent.orderId} ${order?.state}`)
        break
      }
      case 'void': {
        const { state } = told.body as { state?: string }
        const payment = tables.payments.find(({ orderId }) => orderId === intent.orderId)
        if (told.status === 200 && payment?.state !== state) {
          add(nameOf(operation), `was answered ${state}, but the payment is ${payment?.state}`)
        }
        break
      }
      case 'read order':
        checkView(operation, told, intent, tables, add)
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
  { status, body }: Told,
  intent: Intent & { kind: 'order' },
  tables: Tables,
  add: Add,
): void {
  const { code, orderId } = (body ?? {}) as { code?: string; orderId?: string }
  const id = status === 201 ? body : orderId
  const order = tables.orders.find((one) => one.id === id)
  if (order === undefined)
    return add(nameOf(operation), `was answered ${status}; no order ${id} is known`)
  const { state, reason, created } = order
  const earliestMs = Math.min(...operation.attempts.map(({ sentMs }) => sentMs)) - CLOCK_ERROR_MS
  const latestMs = Math.max(...operation.attempts.map(({ doneMs }) => doneMs)) + CLOCK_ERROR_MS
  if (created.getTime() < earliestMs || created.getTime() > latestMs) {
    const asked = `${new Date(earliestMs).toISOString()} and ${new Date(latestMs).toISOString()}`
    add(nameOf(operation), `was created at ${created.toISOString()}, not between ${asked}`)
  }
  const is = `${state} ${reason ?? ''}`
  if (order.quantity !== intent.quantity)
    add(nameOf(operation), `is known with ${order.quantity} pieces`)
  if (order.priceMinor !== UNIT_PRICE_MINOR * BigInt(intent.quantity)) {
    add(nameOf(operation), `of ${intent.quantity} pieces costs ${order.priceMinor}`)
  }
  if (status === 201 && flowOf(order.style).response === 'outcome') {
    const isReversed = state === 'CANCELED' && ['DELETED', 'REFUNDED'].includes(reason ?? '')
    if (state !== 'APPROVED' && !isReversed) add(nameOf(operation), `was answered 201 and is ${is}`)
  }
  if (status !== 201 && state !== 'CANCELED')
    add(nameOf(operation), `was answered ${code} and is ${is}`)
}

function checkPayment(
  operation: Operation,
  { status, body }: Told,
  intent: Intent & { kind: 'pay' },
  tables: Tables,
  add: Add,
): void {
  const { orderId } = (body ?? {}) as { orderId?: string }
  const payment = tables.payments.find(({ id }) => id === (status === 200 ? body : orderId))
  const isRight =
    payment?.accountId === intent.accountId && payment.amountMinor === BigInt(intent.amountMinor)
  if (!isRight) return add(nameOf(operation), `was answered ${status}; its payment is not known`)
  const states = status === 200 ? ['PAID', 'REFUNDED'] : ['REFUSED']
  if (!states.includes(payment.state))
    add(nameOf(operation), `was answered ${status} and is ${payment.state}`)
}

/** A customer who saw an outcome sees no other later, but that the order was given back. */
function checkView(
  operation: Operation,
  { body }: Told,
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
    `showed order ${intent.orderId} as ${seen}, it is ${order?.state} ${order?.reason}`,
  )
}

/** At most one effect for a key, or for each time that a request without one was sent. */
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
    ...tables.orders.map(({ quantity, profileId }) => piecesOf(quantity, profileId)),
    ...tables.payments
      .filter(({ orderId }) => !orderIds.has(orderId))
      .map((payment) => moneyOf('pay', payment)),
  ]
  for (const [what, same] of Map.groupBy(effects, (effect) => effect)) {
    const limit = limits.get(what) ?? 0
    if (same.length > limit) add(what, `has ${same.length} effects of at most ${limit}`)
  }
}

/** What a intent may bring about: effects are traced back to intents by their account and amount. */
function effectOf(intent: Intent): string | undefined {
  if (intent.kind === 'open') return 'open'
  if (intent.kind === 'order') return piecesOf(intent.quantity, intent.accountId)
  return intent.kind === 'deposit' || intent.kind === 'pay'
    ? moneyOf(intent.kind, intent)
    : undefined
}

const piecesOf = (quantity: number, accountId: string) => `order of ${quantity} for ${accountId}`
const moneyOf = (
  kind: 'deposit' | 'pay',
  { amountMinor, accountId }: { amountMinor: number | bigint | null; accountId: string | null },
) => `${kind} of ${amountMinor} on ${accountId}`

/** Who gave an address before is written to, once for each message. */
function checkLetters(
  operations: readonly Operation[],
  { messages }: Tables,
  letters: readonly Letter[],
  add: Add,
): void {
  const sent = new Set<string>()
  for (const { messageId, recipient } of letters) {
    if (sent.has(messageId)) add(`letter ${messageId}`, 'was written to several', 'I7')
    sent.add(messageId)
    const of = messages.find(({ id }) => messageId === `<${id}@trifold>`)
    if (of && recipient !== addressOf(of.accountId)) {
      add(`letter ${messageId}`, `of ${of.accountId} went to ${recipient}`, 'I8')
    }
  }
  for (const { intent, attempts } of operations) {
    if (intent.kind !== 'contact') continue
    const { accountId } = intent
    const since = attempts.find(isAnswered)?.doneMs ?? Number.POSITIVE_INFINITY
    for (const { id } of messages.filter(
      (message) => message.accountId === accountId && message.created.getTime() > since + CLOCKS_MS,
    )) {
      if (!sent.has(`<${id}@trifold>`)) add(`message ${id}`, 'was never written as a letter', 'I7')
    }
  }
}

const isAnswered = ({ response }: Attempt) => response?.status === 200

/** The clocks of two processes may differ by so much. */
const CLOCKS_MS = 2_000
