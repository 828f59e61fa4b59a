import {
  type BalanceChanged,
  type BillingEvent,
  decodeEvent,
  type Event,
  type EventMeta,
  type PaymentEvent,
  type UnknownEvent,
} from '../../contracts/events.ts'
import { toUnits } from '../../contracts/money.ts'
import { flowOf, publishesResults } from '../../contracts/style.ts'
import type { BusMessage } from '../../messaging/bus.ts'
import {
  auditCauses,
  depositAnnounced,
  eventOf,
  paymentAnnounced,
  type Said,
} from './announcements.ts'
import type { Books, Findings } from './findings.ts'
import { LOWEST_ID, PAGE_ROWS, pagesOf } from './pages.ts'
import {
  depositsFrom,
  depositsOf,
  entriesAfter,
  type LedgerEntry,
  ordersOf,
  paymentsFrom,
} from './store.ts'

/** A message as it was sent the first time; the same may come again, and nobody minds. */
interface Sent {
  /** `payment/3/17`, to be read after `message`. */
  readonly place: string
  readonly topic: string
  /** Rises from one message of an account to its next, because a key has one partition. */
  readonly offset: bigint
  /** Of its last copy. */
  lastOffset: bigint
  readonly meta: Pick<EventMeta, 'id' | 'style'>
  readonly body: Event | (BalanceChanged & { readonly event: 'BALANCE_CHANGED' })
}

/**
 * What the log says, against the books: I5, every outcome whose style is told by events is in the log, and
 * what is there has a cause; I6, in the order of the ledger. Of a log that is whole.
 */
export async function auditTopics(
  books: Books,
  messages: readonly BusMessage[],
  findings: Findings,
): Promise<void> {
  const sent = firstsOf(messages, findings)
  findings.checked('I5', sent.size, 'messages of topics')
  const payment: Said[] = []
  const billing: (Sent & { readonly body: BillingEvent })[] = []
  const balances: (Sent & { readonly body: BalanceChanged })[] = []
  for (const one of sent.values()) {
    const { topic, body, meta, place } = one
    if (topic === 'payment') {
      const { event, accountId } = body as PaymentEvent
      payment.push({ subject: `message ${place}`, eventId: meta.id, event, accountId })
    } else if (topic === 'billing') billing.push(one as (typeof billing)[number])
    else balances.push(one as (typeof balances)[number])
  }
  await auditCauses(books, payment, findings)
  await auditRequests(books, billing, findings)
  await auditLedgerOrder(books, sent, balances, findings)
  if (books.settled) await auditOutcomes(books, sent, findings)
}

/** By id. What cannot be read, or says another thing under an id that was used, is found. */
function firstsOf(messages: readonly BusMessage[], findings: Findings): Map<string, Sent> {
  const sent = new Map<string, Sent>()
  for (const message of messages) {
    const place = `${message.topic}/${message.partition}/${message.offset}`
    const read = readMessage(message)
    if (typeof read === 'string') {
      findings.add('I5', `message ${place}`, `cannot be read: ${read}`)
      continue
    }
    if ('unknownEvent' in read) continue
    const { body, meta } = read
    if (message.key !== body.accountId) {
      findings.add(
        'I6',
        `message ${place}`,
        `is of ${body.accountId} and has the key ${message.key}`,
      )
    }
    const before = sent.get(meta.id)
    if (before === undefined) {
      const { topic, offset } = message
      sent.set(meta.id, { place, topic, offset, lastOffset: offset, meta, body })
      continue
    }
    before.lastOffset = message.offset
    if (JSON.stringify(before.body) !== JSON.stringify(body)) {
      findings.add('I5', `message ${place}`, `says another thing than ${before.place} of its id`)
    }
  }
  return sent
}

function readMessage(message: BusMessage): Pick<Sent, 'body' | 'meta'> | UnknownEvent | string {
  if (message.topic !== 'balance') return decodeEvent<Event>(message)
  try {
    const body = JSON.parse(new TextDecoder().decode(message.value ?? undefined)) as BalanceChanged
    const id = `${body.accountId}/BALANCE_CHANGED/${body.version}`
    return { body: { ...body, event: 'BALANCE_CHANGED' }, meta: { id } }
  } catch (error) {
    return (error as Error).message
  }
}

/** I5: what asks billing for something has an order, or a deposit, behind it. */
async function auditRequests(
  { orders, billing }: Books,
  requests: readonly (Sent & { readonly body: BillingEvent })[],
  findings: Findings,
): Promise<void> {
  const orderIds = requests.flatMap(({ body }) => ('orderId' in body ? [body.orderId] : []))
  const known = new Map((await ordersOf(orders, orderIds)).map((order) => [order.id, order]))
  const ids = requests.filter(({ body }) => body.event === 'DEPOSIT_REQUEST')
  const deposits = await depositsOf(
    billing,
    ids.map(({ meta }) => meta.id),
  )
  const requested = new Map(deposits.map((deposit) => [deposit.id, deposit]))
  for (const { place, meta, body } of requests) {
    const { accountId } = body
    const add = (sentence: string) => findings.add('I5', `message ${place}`, sentence)
    if (body.event === 'DEPOSIT_REQUEST') {
      const deposit = requested.get(meta.id)
      if (deposit?.accountId !== accountId) add(`asks for a deposit that is not known: ${meta.id}`)
      continue
    }
    const order = known.get(body.orderId)
    if (order?.profileId !== accountId) {
      add(`is about order ${body.orderId}, which ${accountId} does not have`)
    } else if (body.event === 'ORDER_CREATED' && body.price !== toUnits(order.priceMinor)) {
      add(`asks ${body.price} for order ${order.id}, which costs another price`)
    } else if (body.event === 'ORDER_CANCELED' && order.state !== 'CANCELED') {
      add(`cancels order ${order.id}, which is ${order.state}`)
    }
  }
}

/** I6: announcements, and the balance stream, come in the order of each account's ledger. */
async function auditLedgerOrder(
  { billing, settled }: Books,
  sent: ReadonlyMap<string, Sent>,
  balances: readonly (Sent & { readonly body: BalanceChanged })[],
  findings: Findings,
): Promise<void> {
  const stream = Map.groupBy(balances, ({ body }) => body.accountId)
  let after: Pick<LedgerEntry, 'accountId' | 'version'> = { accountId: LOWEST_ID, version: 0 }
  let entries: LedgerEntry[] = []
  let last: Sent | undefined
  const finish = () => {
    const own = stream.get(entries[0]?.accountId ?? '') ?? []
    if (entries.length > 0) auditBalances(entries, own, settled === true, findings)
    entries = []
    last = undefined
  }
  for (;;) {
    const page = await entriesAfter(billing, after, PAGE_ROWS)
    for (const entry of page) {
      if (entry.accountId !== after.accountId) finish()
      after = entry
      entries.push(entry)
      const message = sent.get(eventOf(entry))
      if (message?.topic !== 'payment') continue
      if (last && message.offset < last.offset) {
        const sentence = `announces entry ${entry.version} of ${entry.accountId} before one that came earlier, ${last.place}`
        findings.add('I6', `message ${message.place}`, sentence)
      } else last = message
    }
    findings.checked('I6', page.length, 'ledger entries against topics')
    if (page.length === 0) return finish()
  }
}

/**
 * Changes that were made together are told as one, the last. Whoever reads the stream only at its end,
 * which is all that compaction keeps, finds the balance of now.
 */
function auditBalances(
  entries: readonly LedgerEntry[],
  stream: readonly (Sent & { readonly body: BalanceChanged })[],
  isSettled: boolean,
  findings: Findings,
): void {
  let told = 0
  let last: (typeof stream)[number] | undefined
  for (const one of stream) {
    const { place, body } = one
    const { version, balance } = body
    // An account is told of when it is opened, too.
    const booked = version === 0 ? 0n : entries[version - 1]?.balanceAfterMinor
    if (booked === undefined || toUnits(booked) !== balance) {
      const sentence = `tells of ${balance} after entry ${version}, and the ledger does not`
      findings.add('I5', `message ${place}`, sentence)
    }
    if (version < told) {
      findings.add('I6', `message ${place}`, `tells of entry ${version} after entry ${told}`)
    }
    told = Math.max(told, version)
    if (last === undefined || one.lastOffset > last.lastOffset) last = one
  }
  if (isSettled && last?.body.version !== entries.length) {
    const end = last ? `entry ${last.body.version}` : 'nothing'
    const sentence = `has ${entries.length} entries, and its balance stream ends with ${end}`
    findings.add('I5', `account ${entries[0]!.accountId}`, sentence)
  }
}

/** I5: every published result is in the log. */
async function auditOutcomes(
  { billing }: Books,
  sent: ReadonlyMap<string, Sent>,
  findings: Findings,
): Promise<void> {
  const payments = pagesOf(
    (from, limit) => paymentsFrom(billing, from, limit),
    ({ orderId }) => orderId,
  )
  const deposits = pagesOf(
    (from, limit) => depositsFrom(billing, from, limit),
    ({ id }) => id,
    '',
  )
  const missing = (announced: ReturnType<typeof paymentAnnounced>) => {
    for (const { eventId, style, subject } of announced) {
      if (!publishesResults(flowOf(style)) || sent.has(eventId)) continue
      findings.add('I5', subject, `is not in the log: no ${eventId} (${style})`)
    }
  }
  for await (const page of payments) missing(page.flatMap(paymentAnnounced))
  for await (const page of deposits) missing(page.flatMap(depositAnnounced))
}
