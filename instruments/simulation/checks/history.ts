import type { Letter } from '../../../apps/audit/findings.ts'
import { flowOf } from '../../../contracts/style.ts'
import { isReadable } from '../world/answers.ts'
import { type Attempt, addressOf, type Deed, isFinal, type Wish } from '../world/customers.ts'
import type { Add, Books, Finding } from './books.ts'
import { CLOCK_ERROR_MS, checkPunctuality, type Times } from './punctuality.ts'
import { checkBalances } from './told-balances.ts'

/**
 * What customers were told, against the books: every acknowledged request has its effect, every
 * effect has a request, and the same request, repeated, was answered the same.
 */
export function checkHistory(
  deeds: readonly Deed[],
  books: Books,
  letters: readonly Letter[],
  times: Times,
): Finding[] {
  const found: Finding[] = []
  const add = (subject: string, sentence: string, invariant = 'history') =>
    found.push({ invariant, subject, sentence })
  for (const deed of deeds) {
    checkAnswers(deed, add)
    checkEffect(deed, books, add)
  }
  checkCauses(deeds, books, add)
  checkBalances(deeds, books, add)
  checkLetters(deeds, books, letters, add)
  checkPunctuality(books, times, add)
  return found
}

const UNIT_PRICE_MINOR = 6_500n

/** What a request was answered that took effect, or was refused for good. */
interface Told {
  readonly status: number
  readonly body: unknown
}

const finals = ({ wish, attempts }: Deed): Told[] =>
  attempts.flatMap((attempt) => {
    const { answer } = attempt
    return isFinal(attempt) && answer && isReadable(wish, answer) ? [answer] : []
  })

const nameOf = ({ wish, key }: Deed) => `${wish.kind}${key === undefined ? '' : ` ${key}`}`

/** The same key has one answer, for ever; and nobody is told of faults of our own making. */
function checkAnswers(deed: Deed, add: Add): void {
  const answers = finals(deed)
  if (deed.key !== undefined) {
    const texts = new Set(answers.map(({ status, body }) => `${status} ${withoutInstance(body)}`))
    if (texts.size > 1) add(nameOf(deed), `was answered differently: ${[...texts].join(' / ')}`)
  }
  for (const attempt of deed.attempts) {
    const { answer } = attempt
    if (answer === undefined) continue
    const is = `was answered ${answer.status} ${JSON.stringify(answer.body)}`
    const isExpected = !isFinal(attempt) || EXPECTED[deed.wish.kind].includes(answer.status)
    if (answer.status === 500 || !isExpected) add(nameOf(deed), is)
    else if (isFinal(attempt) && isRetryable(answer.body)) add(nameOf(deed), `${is}, for good`)
    else if (!isReadable(deed.wish, answer)) add(nameOf(deed), `${is}, which nobody can read`)
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

const EXPECTED: Readonly<Record<Wish['kind'], readonly number[]>> = {
  open: [200],
  deposit: [200],
  order: [201, 402, 404, 409, 503],
  delete: [200],
  pay: [200, 402],
  void: [200],
  contact: [200],
  'look at balance': [200],
  'look at order': [200],
  'look at orders': [200],
  pry: [403],
  'reuse a key': [422],
}

function checkEffect(deed: Deed, books: Books, add: Add): void {
  const { wish } = deed
  for (const told of finals(deed)) {
    switch (wish.kind) {
      case 'open':
        if (!books.accounts.some(({ id }) => id === told.body)) {
          add(nameOf(deed), `was acknowledged, but there is no account ${told.body}`)
        }
        break
      case 'deposit':
        if (told.status === 200 && creditsOf(wish, books) === 0) {
          add(nameOf(deed), `of ${wish.amountMinor} was acknowledged and is not on its account`)
        }
        break
      case 'order':
        checkOrder(deed, told, wish, books, add)
        break
      case 'pay':
        checkPayment(deed, told, wish, books, add)
        break
      case 'delete': {
        const order = books.orders.find(({ id }) => id === wish.orderId)
        if (order?.state !== 'CANCELED')
          add(nameOf(deed), `left order ${wish.orderId} ${order?.state}`)
        break
      }
      case 'void': {
        const { state } = told.body as { state?: string }
        const payment = books.payments.find(({ orderId }) => orderId === wish.orderId)
        if (told.status === 200 && payment?.state !== state) {
          add(nameOf(deed), `was answered ${state}, but the payment is ${payment?.state}`)
        }
        break
      }
      case 'look at order':
        checkView(deed, told, wish, books, add)
        break
      default:
    }
  }
}

const creditsOf = (wish: { accountId: string; amountMinor: number }, { entries }: Books) =>
  entries.filter(
    ({ kind, accountId, amountMinor }) =>
      kind === 'DEPOSIT' &&
      accountId === wish.accountId &&
      amountMinor === BigInt(wish.amountMinor),
  ).length

function checkOrder(
  deed: Deed,
  { status, body }: Told,
  wish: Wish & { kind: 'order' },
  books: Books,
  add: Add,
): void {
  const { code, orderId } = (body ?? {}) as { code?: string; orderId?: string }
  const id = status === 201 ? body : orderId
  const order = books.orders.find((one) => one.id === id)
  if (order === undefined)
    return add(nameOf(deed), `was answered ${status}; no order ${id} is known`)
  const { state, reason, created } = order
  const earliestMs = Math.min(...deed.attempts.map(({ sentMs }) => sentMs)) - CLOCK_ERROR_MS
  const latestMs = Math.max(...deed.attempts.map(({ answeredMs }) => answeredMs)) + CLOCK_ERROR_MS
  if (created.getTime() < earliestMs || created.getTime() > latestMs) {
    const asked = `${new Date(earliestMs).toISOString()} and ${new Date(latestMs).toISOString()}`
    add(nameOf(deed), `was created at ${created.toISOString()}, not between ${asked}`)
  }
  const is = `${state} ${reason ?? ''}`
  if (order.quantity !== wish.quantity) add(nameOf(deed), `is known with ${order.quantity} pieces`)
  if (order.priceMinor !== UNIT_PRICE_MINOR * BigInt(wish.quantity)) {
    add(nameOf(deed), `of ${wish.quantity} pieces costs ${order.priceMinor}`)
  }
  if (status === 201 && flowOf(order.style).response === 'outcome') {
    const isGivenBack = state === 'CANCELED' && ['DELETED', 'REFUNDED'].includes(reason ?? '')
    if (state !== 'APPROVED' && !isGivenBack) add(nameOf(deed), `was answered 201 and is ${is}`)
  }
  if (status !== 201 && state !== 'CANCELED') add(nameOf(deed), `was answered ${code} and is ${is}`)
}

function checkPayment(
  deed: Deed,
  { status, body }: Told,
  wish: Wish & { kind: 'pay' },
  books: Books,
  add: Add,
): void {
  const { orderId } = (body ?? {}) as { orderId?: string }
  const payment = books.payments.find(({ id }) => id === (status === 200 ? body : orderId))
  const isRight =
    payment?.accountId === wish.accountId && payment.amountMinor === BigInt(wish.amountMinor)
  if (!isRight) return add(nameOf(deed), `was answered ${status}; its payment is not known`)
  const states = status === 200 ? ['PAID', 'REFUNDED'] : ['REFUSED']
  if (!states.includes(payment.state))
    add(nameOf(deed), `was answered ${status} and is ${payment.state}`)
}

/** A customer who saw an outcome sees no other later, but that the order was given back. */
function checkView(
  deed: Deed,
  { body }: Told,
  wish: Wish & { kind: 'look at order' },
  books: Books,
  add: Add,
): void {
  const seen = (body as { state?: string }).state
  const order = books.orders.find(({ id }) => id === wish.orderId)
  if (seen === 'PENDING' || seen === order?.state) return
  const isGivenBack = ['DELETED', 'REFUNDED'].includes(order?.reason ?? '')
  if (seen === 'APPROVED' && isGivenBack) return
  add(
    nameOf(deed),
    `showed order ${wish.orderId} as ${seen}, it is ${order?.state} ${order?.reason}`,
  )
}

/** At most one effect for a key, or for each time that a request without one was sent. */
function checkCauses(deeds: readonly Deed[], books: Books, add: Add): void {
  const limits = new Map<string, number>()
  for (const { wish, key, attempts } of deeds) {
    const what = effectOf(wish)
    const most = key === undefined ? 2 * attempts.length : 1
    if (what !== undefined) limits.set(what, (limits.get(what) ?? 0) + most)
  }
  const orderIds = new Set(books.orders.map(({ id }) => id))
  const effects = [
    ...books.accounts.map(() => 'open'),
    ...books.deposits.map((deposit) => moneyOf('deposit', deposit)),
    ...books.orders.map(({ quantity, profileId }) => piecesOf(quantity, profileId)),
    ...books.payments
      .filter(({ orderId }) => !orderIds.has(orderId))
      .map((payment) => moneyOf('pay', payment)),
  ]
  for (const [what, same] of Map.groupBy(effects, (effect) => effect)) {
    const limit = limits.get(what) ?? 0
    if (same.length > limit) add(what, `has ${same.length} effects of at most ${limit}`)
  }
}

/** What a wish may bring about: effects are traced back to wishes by their account and amount. */
function effectOf(wish: Wish): string | undefined {
  if (wish.kind === 'open') return 'open'
  if (wish.kind === 'order') return piecesOf(wish.quantity, wish.accountId)
  return wish.kind === 'deposit' || wish.kind === 'pay' ? moneyOf(wish.kind, wish) : undefined
}

const piecesOf = (quantity: number, accountId: string) => `order of ${quantity} for ${accountId}`
const moneyOf = (
  kind: 'deposit' | 'pay',
  { amountMinor, accountId }: { amountMinor: number | bigint | null; accountId: string | null },
) => `${kind} of ${amountMinor} on ${accountId}`

/** Who gave an address before is written to, once for each message. */
function checkLetters(
  deeds: readonly Deed[],
  { messages }: Books,
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
  for (const { wish, attempts } of deeds) {
    if (wish.kind !== 'contact') continue
    const { accountId } = wish
    const since = attempts.find(isAnswered)?.answeredMs ?? Number.POSITIVE_INFINITY
    for (const { id } of messages.filter(
      (message) => message.accountId === accountId && message.created.getTime() > since + CLOCKS_MS,
    )) {
      if (!sent.has(`<${id}@trifold>`)) add(`message ${id}`, 'was never written as a letter', 'I7')
    }
  }
}

const isAnswered = ({ answer }: Attempt) => answer?.status === 200

/** The clocks of two processes may differ by so much. */
const CLOCKS_MS = 2_000
