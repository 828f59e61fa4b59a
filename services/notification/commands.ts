import { traceOf } from '../../contracts/trace-context.ts'
import type { Outbox, OutboxMessage } from '../../messaging/outbox/outbox.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { isAbout, type Notice, ownId, SUBJECTS, textOf } from './message.ts'
import {
  countLetters,
  findByEvents,
  findContacts,
  insertMessages,
  lockAccounts,
  type NewMessage,
  type StoredMessage,
} from './store.ts'

/**
 * What notification does in one transaction: it writes the notices of a batch, which are its commands, and puts
 * a letter into the outbox for each new notice whose account has a contact.
 */
export interface CommandContext {
  readonly outbox: Outbox
  readonly newId: () => string
  /** The most letters that an address gets in an hour; 0 sets no limit. */
  readonly lettersPerHour: number
}

/** The stored message of a notice: written by this batch, or found from an earlier delivery of its event. */
export interface Written {
  readonly message: StoredMessage
  readonly isNew: boolean
  /** The message is new, but it gets no letter, because its address has reached LETTERS_PER_HOUR. */
  readonly isSuppressed: boolean
}

type Found = Omit<Written, 'isSuppressed'> & { readonly notice: Notice }

export async function applyCommands(
  tx: Queryable,
  at: CommandContext,
  notices: readonly Notice[],
): Promise<Written[]> {
  const overtaken = await overtakenFailures(tx, notices)
  const written = await writeAll(
    tx,
    at,
    notices.filter(({ eventId }) => !overtaken.has(eventId)),
  )
  if (overtaken.size === 0) return written
  const instead = await findByEvents(tx, [...overtaken.values()])
  const others = written.values()
  return notices.map(({ eventId }) => {
    const message = instead.get(overtaken.get(eventId) ?? '')
    return message ? { message, isNew: false, isSuppressed: false } : others.next().value!
  })
}

/**
 * The failures that are not written, each with the id of the event whose notice stands in for it. Order may
 * cancel an order before it learns that billing took the payment. If the notice of the payment is written
 * before that of the failure, the customer reads about the payment and then about the refund. A failure
 * after those would be the last notice of an order whose money was taken and refunded.
 */
async function overtakenFailures(
  tx: Queryable,
  notices: readonly Notice[],
): Promise<Map<string, string>> {
  const failures = notices.filter(({ event }) => event === 'PAYMENT_FAIL')
  if (failures.length === 0) return new Map()
  const paymentEvents = (orderId: string) => [
    `${orderId}/PAYMENT_REFUNDED`,
    `${orderId}/ORDER_PAID`,
  ]
  const ids = failures.flatMap((notice) =>
    'orderId' in notice ? [notice.eventId, ...paymentEvents(notice.orderId)] : [],
  )
  // The lock keeps other transactions from writing notices of these payments between this read and the
  // failure's insert.
  const [, before] = await Promise.all([
    lockAccounts(tx, [...new Set(notices.map(({ accountId }) => accountId))]),
    findByEvents(tx, ids),
  ])
  const overtaken = new Map<string, string>()
  const written = new Map(
    [...before.values()].map(({ eventId, accountId }) => [eventId, accountId]),
  )
  for (const notice of notices) {
    if (notice.event !== 'PAYMENT_FAIL') written.set(notice.eventId, notice.accountId)
    else if (!written.has(notice.eventId)) {
      const isTheirs = (eventId: string) => written.get(eventId) === notice.accountId
      const instead = paymentEvents(notice.orderId).find(isTheirs)
      if (instead) overtaken.set(notice.eventId, instead)
    }
  }
  return overtaken
}

/**
 * Writes one message per event. If the event's id is occupied by other content, such as by a call that any
 * client can make, the notice is written under an id of its own.
 */
async function writeAll(
  tx: Queryable,
  at: CommandContext,
  notices: readonly Notice[],
): Promise<Written[]> {
  const accountIds = new Set(notices.map(({ accountId }) => accountId))
  const [byEvent, contacts] = await Promise.all([
    writeOrFind(tx, at, notices, ({ eventId }) => eventId),
    findContacts(tx, [...accountIds]),
  ])
  const displaced = notices.filter((notice, index) => {
    const { message } = byEvent[index]!
    const mayBeSeparate = notice.source === 'event' || message.accountId !== notice.accountId
    return mayBeSeparate && !isAbout(message, notice)
  })
  const own = await writeOrFind(tx, at, displaced, ownId)
  const separate = new Map(displaced.map((notice, index) => [notice, own[index]!]))
  const found = notices.map((notice, index) => separate.get(notice) ?? byEvent[index]!)
  const letters = byEvent.concat(own).flatMap((one) => (one.isNew ? letterTo(contacts, one) : []))
  const allowed = await withinHourlyLimit(tx, at.lettersPerHour, letters)
  await at.outbox.enqueue(tx, allowed)
  const suppressed = new Set(letters.filter((letter) => !allowed.includes(letter)).map(idOf))
  return found.map(({ message, isNew }) => ({
    message,
    isNew,
    isSuppressed: isNew && suppressed.has(message.eventId),
  }))
}

const idOf = ({ eventId }: OutboxMessage) => eventId

/** Writes the message of each notice under the given id, or finds the message that already has this id. */
async function writeOrFind(
  tx: Queryable,
  at: CommandContext,
  notices: readonly Notice[],
  idOf: (notice: Notice) => string,
): Promise<Found[]> {
  const wanted = new Map<string, NewMessage>()
  for (const notice of notices) {
    const eventId = idOf(notice)
    const { accountId, event } = notice
    if (wanted.has(eventId)) continue
    wanted.set(eventId, { id: at.newId(), eventId, accountId, event, text: textOf(notice) })
  }
  const inserted = await insertMessages(tx, [...wanted.values()])
  const fresh = new Map(inserted.map((message) => [message.eventId, message]))
  const messages = await findByEvents(
    tx,
    [...wanted.keys()].filter((eventId) => !fresh.has(eventId)),
  )
  return notices.map((notice) => {
    const eventId = idOf(notice)
    const message = fresh.get(eventId)
    // If a batch contains two notices of one event, only the first is new.
    fresh.delete(eventId)
    if (message) messages.set(eventId, message)
    const isNew = message !== undefined
    return { message: messages.get(eventId) as StoredMessage, isNew, notice }
  })
}

async function withinHourlyLimit(
  tx: Queryable,
  limit: number,
  letters: readonly OutboxMessage[],
): Promise<readonly OutboxMessage[]> {
  if (limit === 0 || letters.length === 0) return letters
  const byAddress = Map.groupBy(letters, ({ destination }) => destination.toLowerCase())
  const counts = new Map([...byAddress].map(([email, { length }]) => [email, length]))
  const before = await countLetters(tx, counts)
  const allowed = new Set(
    [...byAddress].flatMap(([email, list]) =>
      list.slice(0, Math.max(0, limit - (before.get(email) ?? 0))),
    ),
  )
  return letters.filter((letter) => allowed.has(letter))
}

/** A letter keeps its Message-ID in all attempts, so that mail systems can deduplicate it. */
function letterTo(
  contacts: ReadonlyMap<string, string>,
  { message, notice }: Found,
): OutboxMessage[] {
  const email = contacts.get(message.accountId)
  if (email === undefined) return []
  return [
    {
      carrier: 'letter',
      destination: email,
      key: message.accountId,
      eventId: message.eventId,
      body: message.text,
      headers: {
        'message-id': `<${message.id}@trifold>`,
        subject: SUBJECTS[notice.event],
        date: message.created.toISOString(),
        ...traceOf(notice),
      },
    },
  ]
}
