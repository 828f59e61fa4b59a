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
  type Announcement,
  auditCauses,
  depositAnnounced,
  eventOf,
  paymentAnnounced,
} from './announcements.ts'
import type { AuditInput, Findings } from './findings.ts'
import { LOWEST_ID, PAGE_ROWS, pagesOf } from './pages.ts'
import {
  depositsFrom,
  depositsOf,
  entriesAfter,
  type LedgerEntry,
  ordersOf,
  paymentsFrom,
} from './store.ts'

/** The first copy of a message. Later copies are allowed, because receivers deduplicate them. */
interface Sent {
  /** The topic, partition and offset of the copy, such as `payment/3/17`. */
  readonly place: string
  readonly topic: string
  /**
   * The offset of the first copy. Offsets of an account's messages can be compared, because all of them are
   * in one partition.
   */
  readonly offset: bigint
  /** The offset of the last copy. */
  lastOffset: bigint
  readonly meta: Pick<EventMeta, 'id' | 'style'>
  readonly body: Event | (BalanceChanged & { readonly event: 'BALANCE_CHANGED' })
}

/**
 * Compares the complete log of the broker with the databases. I5: every outcome of a style that publishes
 * results is in the log, and every message in the log has a cause. I6: messages are in the order of the
 * ledger.
 */
export async function auditTopics(
  input: AuditInput,
  messages: readonly BusMessage[],
  findings: Findings,
): Promise<void> {
  const sent = firstCopies(messages, findings)
  findings.checked('I5', sent.size, 'messages of topics')
  const payment: Announcement[] = []
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
  await auditCauses(input, payment, findings)
  await auditRequests(input, billing, findings)
  await auditLedgerOrder(input, sent, balances, findings)
  if (input.settled) await auditOutcomes(input, sent, findings)
}

/**
 * Returns the first copy of each message, by event id. Reports messages that are unreadable or that differ
 * from their first copy.
 */
function firstCopies(messages: readonly BusMessage[], findings: Findings): Map<string, Sent> {
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
        `is about account ${body.accountId}, but has the key ${message.key}`,
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
      findings.add('I5', `message ${place}`, `differs from ${before.place}, which has the same id`)
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

/** Checks I5: every request to the billing service belongs to an order or a deposit. */
async function auditRequests(
  { orders, billing }: AuditInput,
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
      if (deposit?.accountId !== accountId) add(`requests an unknown deposit: ${meta.id}`)
      continue
    }
    const order = known.get(body.orderId)
    if (order?.profileId !== accountId) {
      add(`is about order ${body.orderId}, which account ${accountId} does not have`)
    } else if (body.event === 'ORDER_CREATED' && body.price !== toUnits(order.priceMinor)) {
      add(`requests ${body.price} for order ${order.id}, which has another price`)
    } else if (body.event === 'ORDER_CANCELED' && order.state !== 'CANCELED') {
      add(`cancels order ${order.id}, which is ${order.state}`)
    }
  }
}

/** Checks I6: announcements and balance events are in the order of each account's ledger. */
async function auditLedgerOrder(
  { billing, settled }: AuditInput,
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
        const sentence = `announces entry ${entry.version} of account ${entry.accountId}, but precedes ${last.place}, which announces an earlier entry`
        findings.add('I6', `message ${message.place}`, sentence)
      } else last = message
    }
    findings.checked('I6', page.length, 'ledger entries against topics')
    if (page.length === 0) return finish()
  }
}

/**
 * A batch sends one balance event for each account that it changed, with the balance after the batch. The
 * last balance event of an account must have the current balance, because compaction keeps only that event.
 */
function auditBalances(
  entries: readonly LedgerEntry[],
  stream: readonly (Sent & { readonly body: BalanceChanged })[],
  isSettled: boolean,
  findings: Findings,
): void {
  let highest = 0
  let last: (typeof stream)[number] | undefined
  for (const one of stream) {
    const { place, body } = one
    const { version, balance } = body
    // The balance event of a new account has version 0.
    const booked = version === 0 ? 0n : entries[version - 1]?.balanceAfterMinor
    if (booked === undefined || toUnits(booked) !== balance) {
      const sentence = `has the balance ${balance} after entry ${version}, but the ledger does not`
      findings.add('I5', `message ${place}`, sentence)
    }
    if (version < highest) {
      findings.add('I6', `message ${place}`, `announces entry ${version} after entry ${highest}`)
    }
    highest = Math.max(highest, version)
    if (last === undefined || one.lastOffset > last.lastOffset) last = one
  }
  if (isSettled && last?.body.version !== entries.length) {
    const end = last ? `entry ${last.body.version}` : 'nothing'
    const sentence = `has ${entries.length} entries, but its balance stream ends with ${end}`
    findings.add('I5', `account ${entries[0]!.accountId}`, sentence)
  }
}

/** Checks I5: every result of a style that publishes results is in the log. */
async function auditOutcomes(
  { billing }: AuditInput,
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
