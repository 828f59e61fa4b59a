import { flowOf, type InteractionStyle } from '../../contracts/style.ts'
import { findInOutbox, findUnread } from '../../messaging/outstanding.ts'
import { type AuditInput, type Findings, type Letter, MAX_VIOLATIONS_EACH } from './findings.ts'
import { LOWEST_ID, PAGE_ROWS, pagesOf } from './pages.ts'
import {
  type Deposit,
  depositsFrom,
  depositsOf,
  entriesAfter,
  knownMessages,
  type LedgerEntry,
  type Message,
  messagesAfter,
  messagesOf,
  type Order,
  ordersOf,
  type Payment,
  paymentsFrom,
  paymentsOf,
  repeatedEvents,
} from './store.ts'

/** Checks I5, I6 and I7: compares the notices to customers with the ledger, the payments and the deposits. */
export async function auditAnnouncements(input: AuditInput, findings: Findings): Promise<void> {
  await auditOutcomes(input, findings)
  await auditOrderOfLedger(input, findings)
  await auditMessages(input, findings)
  if (input.letters) await auditLetters(input, input.letters, findings)
}

/** An event that must have been announced to the customer. */
export interface Announced {
  readonly eventId: string
  readonly style: InteractionStyle
  readonly subject: string
}

/** Checks I5: every committed outcome is announced. */
async function auditOutcomes(input: AuditInput, findings: Findings): Promise<void> {
  const { billing } = input
  const payments = pagesOf(
    (from, limit) => paymentsFrom(billing, from, limit),
    ({ orderId }) => orderId,
  )
  for await (const page of payments) {
    await auditMissing(input, findings, 'billing', page.flatMap(paymentAnnounced))
  }
  const deposits = pagesOf(
    (from, limit) => depositsFrom(billing, from, limit),
    ({ id }) => id,
    '',
  )
  for await (const page of deposits) {
    await auditMissing(input, findings, 'billing', page.flatMap(depositAnnounced))
  }
}

/**
 * The events that announce a payment. A void that arrives before the payment is not announced; the refusal of
 * the payment is.
 */
export function paymentAnnounced({ orderId, state, style }: Payment): Announced[] {
  const events = {
    PAID: ['ORDER_PAID'],
    REFUNDED: ['ORDER_PAID', 'PAYMENT_REFUNDED'],
    REFUSED: ['PAYMENT_FAIL'],
    VOIDED: [],
  }[state]
  const subject = `payment of order ${orderId}`
  return events.map((event) => ({ eventId: `${orderId}/${event}`, style, subject }))
}

export function depositAnnounced({ id, state, style }: Deposit): Announced[] {
  if (state !== 'APPLIED') return []
  return [{ eventId: `${id}/DEPOSIT_ACCEPTED`, style, subject: `deposit ${id}` }]
}

/**
 * Checks I5 for events that the service with this schema has committed. Unless all work must be finished, an
 * event may still be in the outbox or in the log of the broker. The outbox is read before the log, and the
 * notices are read last, so that an event in flight is found in at least one of them.
 */
export async function auditMissing(
  input: AuditInput,
  findings: Findings,
  schema: 'orders' | 'billing',
  announced: readonly Announced[],
): Promise<void> {
  if (announced.length === 0) return
  const { notification, bus, settled } = input
  const withNotice = async (ids: string[]) =>
    (await messagesOf(notification, ids)).map(({ eventId }) => eventId)
  const without = async (found: (ids: string[]) => Promise<string[]>) => {
    if (missing.length === 0) return
    const ids = new Set(await found(missing.map(({ eventId }) => eventId)))
    missing = missing.filter(({ eventId }) => !ids.has(eventId))
  }
  let missing = announced
  await without(withNotice)
  if (!settled) {
    await without((ids) => findInOutbox(input[schema], schema, ids))
    if (bus) await without((ids) => findUnread(bus, 'payment', 'notification', ids))
    // If the log cannot be read, any event may still be in it. A call leaves the outbox only after the
    // receiver has accepted it, so only calls are checked.
    else missing = missing.filter(({ style }) => flowOf(style).announcement === 'call')
    await without(withNotice)
  }
  findings.checked('I5', announced.length, 'outcomes')
  for (const { eventId, subject, style } of missing) {
    const event = eventId.slice(eventId.lastIndexOf('/') + 1)
    findings.add('I5', subject, `was never announced: no message ${event} (${style})`)
  }
}

/** Checks I6: within a style, notices arrive in the order of the ledger. */
async function auditOrderOfLedger(input: AuditInput, findings: Findings): Promise<void> {
  const { billing, notification } = input
  let after: Pick<LedgerEntry, 'accountId' | 'version'> = { accountId: LOWEST_ID, version: 0 }
  const latest = new Map<string, { readonly entry: LedgerEntry; readonly message: Message }>()
  for (;;) {
    const entries = await entriesAfter(billing, after, PAGE_ROWS)
    const messages = await messagesOf(notification, entries.map(eventOf))
    const byEvent = new Map(messages.map((message) => [message.eventId, message]))
    for (const entry of entries) {
      if (entry.accountId !== after.accountId) latest.clear()
      after = entry
      const message = byEvent.get(eventOf(entry))
      if (message === undefined || entry.style === null) continue
      const before = latest.get(entry.style)
      // If an event has two transfers, both have the same message. I2 reports them.
      if (before?.message.id === message.id) continue
      if (before && before.message.created >= message.created) {
        const nameOf = (at: LedgerEntry, { event }: Message) => `entry ${at.version} (${event})`
        const sentence = `got the notice of ${nameOf(entry, message)} no later than that of ${nameOf(before.entry, before.message)}`
        findings.add('I6', `account ${entry.accountId}`, sentence)
      } else latest.set(entry.style, { entry, message })
    }
    findings.checked('I6', messages.length, 'announced ledger entries')
    if (entries.length === 0) return
  }
}

const EVENT_OF_KIND = {
  DEPOSIT: 'DEPOSIT_ACCEPTED',
  PAYMENT: 'ORDER_PAID',
  REFUND: 'PAYMENT_REFUNDED',
} as const
export const eventOf = ({ kind, causeId }: LedgerEntry) => `${causeId}/${EVENT_OF_KIND[kind]}`

/**
 * Checks I7 and the other half of I5: the messages of an account have increasing times, and each message has
 * a cause.
 */
async function auditMessages(input: AuditInput, findings: Findings): Promise<void> {
  const { notification } = input
  for (const { eventId, messages } of await repeatedEvents(notification, MAX_VIOLATIONS_EACH)) {
    findings.add('I7', `event ${eventId}`, `has ${messages} messages`)
  }
  let last: Message | undefined
  /** The orders whose payment has been announced to the account so far. */
  const paid = new Set<string>()
  for (;;) {
    const after = last ?? { accountId: LOWEST_ID, seq: 0n }
    const messages = await messagesAfter(notification, after, PAGE_ROWS)
    for (const message of messages) {
      if (last?.accountId === message.accountId && last.created >= message.created) {
        const sentence = `was written after message ${last.id}, but not with a later time`
        findings.add('I7', `message ${message.id}`, sentence)
      }
      if (last?.accountId !== message.accountId) paid.clear()
      last = message
      auditFailure(message, paid, findings)
    }
    findings.checked('I7', messages.length, 'messages')
    if (messages.length === 0) return
    const announcements = messages.map((message) => ({
      ...message,
      subject: `message ${message.id}`,
    }))
    await auditCauses(input, announcements, findings)
  }
}

const ID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
const PAYMENT_EVENT = new RegExp(`^(${ID})/(ORDER_PAID|PAYMENT_FAIL|PAYMENT_REFUNDED)$`)
const DEPOSIT_EVENT = /^(.+)\/(DEPOSIT_ACCEPTED)$/s

/** Checks I6: the failure of an order is never announced after its payment. */
function auditFailure(message: Message, paid: Set<string>, findings: Findings): void {
  const [, orderId, event] = PAYMENT_EVENT.exec(message.eventId) ?? []
  if (orderId === undefined) return
  if (event !== 'PAYMENT_FAIL') paid.add(orderId)
  else if (paid.has(orderId)) {
    const sentence = `says that order ${orderId} failed, after the customer read that it was paid`
    findings.add('I6', `message ${message.id}`, sentence)
  }
}

/**
 * Checks I5: every announcement has a cause. Announcements of foreign programs are skipped; their event ids
 * have another form.
 */
export async function auditCauses(
  { billing, orders }: AuditInput,
  messages: readonly Announcement[],
  findings: Findings,
): Promise<void> {
  const ofPayments = messages.flatMap((message) => caused(message, PAYMENT_EVENT))
  const ofDeposits = messages.flatMap((message) => caused(message, DEPOSIT_EVENT))
  const orderIds = [...new Set(ofPayments.map(({ causeId }) => causeId))]
  const payments = await paymentsOf(billing, orderIds)
  const byOrder = new Map(payments.map((payment) => [payment.orderId, payment]))
  const depositIds = ofDeposits.map(({ causeId }) => causeId)
  const deposits = await depositsOf(billing, depositIds)
  const byDeposit = new Map(deposits.map((deposit) => [deposit.id, deposit]))

  const unpaid = ofPayments.filter(
    (announcement) => !isCausedByPayment(announcement, byOrder.get(announcement.causeId)),
  )
  const failures = unpaid.filter(({ event }) => event === 'PAYMENT_FAIL')
  const canceled = await ordersOf(
    orders,
    failures.map(({ causeId }) => causeId),
  )
  const byId = new Map(canceled.map((order) => [order.id, order]))
  const causeless = [
    ...unpaid.filter(
      (announcement) => !isCausedByOrder(announcement, byId.get(announcement.causeId)),
    ),
    ...ofDeposits.filter(
      (announcement) => !isCausedByDeposit(announcement, byDeposit.get(announcement.causeId)),
    ),
  ]
  findings.checked('I5', ofPayments.length + ofDeposits.length, 'announcements')
  for (const { message, event, causeId } of causeless) {
    const cause = event === 'DEPOSIT_ACCEPTED' ? byDeposit.get(causeId) : byOrder.get(causeId)
    const found = cause ? `${cause.state}, of account ${cause.accountId}` : 'nothing'
    const sentence = `announces ${message.event} of ${causeId} to account ${message.accountId}, but the billing service has ${found}`
    findings.add('I5', message.subject, sentence)
  }
}

/** An announcement to an account, with the name that a violation uses for it. */
export interface Announcement extends Pick<Message, 'eventId' | 'event' | 'accountId'> {
  readonly subject: string
}

interface Caused {
  readonly message: Announcement
  readonly causeId: string
  readonly event: string
}

function caused(message: Announcement, form: RegExp): Caused[] {
  const [, causeId, event] = form.exec(message.eventId) ?? []
  return causeId && event ? [{ message, causeId, event }] : []
}

/** For each event, the states of the payment that can have caused it. */
const STATES_BEHIND: Readonly<Record<string, readonly Payment['state'][]>> = {
  ORDER_PAID: ['PAID', 'REFUNDED'],
  PAYMENT_FAIL: ['REFUSED', 'VOIDED'],
  PAYMENT_REFUNDED: ['REFUNDED'],
}

function isCausedByPayment({ message, event }: Caused, payment: Payment | undefined): boolean {
  if (payment === undefined || message.event !== event) return false
  // If a void arrived before the payment, the stored payment may name no account, although the refused
  // payment request named one.
  if (payment.accountId !== null && payment.accountId !== message.accountId) return false
  return STATES_BEHIND[event]?.includes(payment.state) ?? false
}

function isCausedByOrder({ message, event }: Caused, order: Order | undefined): boolean {
  if (order === undefined || message.event !== event) return false
  return order.state === 'CANCELED' && order.profileId === message.accountId
}

function isCausedByDeposit({ message, event }: Caused, deposit: Deposit | undefined): boolean {
  if (deposit === undefined || message.event !== event) return false
  return deposit.state === 'APPLIED' && deposit.accountId === message.accountId
}

const OUR_LETTER = new RegExp(`^<(${ID})@trifold>$`)

/** Checks I7: each letter reached each recipient exactly once. Letters from other senders are skipped. */
async function auditLetters(
  { notification }: AuditInput,
  letters: readonly Letter[],
  findings: Findings,
): Promise<void> {
  const copies = new Map<string, number>()
  const ids = new Set<string>()
  for (const { messageId, recipient } of letters) {
    const id = OUR_LETTER.exec(messageId)?.[1]
    if (id === undefined) continue
    ids.add(id)
    const letter = `${messageId} to ${recipient}`
    copies.set(letter, (copies.get(letter) ?? 0) + 1)
  }
  for (const [letter, count] of copies) {
    if (count > 1) findings.add('I7', `letter ${letter}`, `was found ${count} times`)
  }
  const all = [...ids]
  for (let from = 0; from < all.length; from += PAGE_ROWS) {
    const page = all.slice(from, from + PAGE_ROWS)
    const known = await knownMessages(notification, page)
    for (const id of page) {
      if (!known.has(id)) findings.add('I7', `letter <${id}@trifold>`, 'belongs to no message')
    }
  }
  findings.checked('I7', copies.size, 'letters')
}
