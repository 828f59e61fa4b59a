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
 * What notification does in one transaction: the messages of a batch of events are written, and for
 * each that is new and whose account has a contact, a letter goes to the outbox.
 */
export interface CommandContext {
  readonly outbox: Outbox
  readonly newId: () => string
  /** The most letters that an address gets in an hour; 0 sets no limit. */
  readonly lettersPerHour: number
}

/** The message of a notice: a new one, or the one that its event had before. */
export interface Told {
  readonly message: StoredMessage
  readonly isNew: boolean
  /** It is new, but its letter was left out, because its address had its share of the hour. */
  readonly isSuppressed: boolean
}

type Found = Omit<Told, 'isSuppressed'> & { readonly notice: Notice }

export async function writeMessages(
  tx: Queryable,
  at: CommandContext,
  notices: readonly Notice[],
): Promise<Told[]> {
  const overtaken = await overtakenFailures(tx, notices)
  const told = await tellAll(
    tx,
    at,
    notices.filter(({ eventId }) => !overtaken.has(eventId)),
  )
  if (overtaken.size === 0) return told
  const instead = await findByEvents(tx, [...overtaken.values()])
  const others = told.values()
  return notices.map(({ eventId }) => {
    const message = instead.get(overtaken.get(eventId) ?? '')
    return message ? { message, isNew: false, isSuppressed: false } : others.next().value!
  })
}

/**
 * Failures that are not told, each with the event that the customer has read in its place. Order may
 * cancel an order before it hears that billing was paid: then the customer has read, or is about to
 * read, that the order was paid, and hears next of the refund. A failure after that would be the last
 * word on an order whose money was taken and refunded.
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
  // The lock keeps others from writing of these payments between this look and the failure.
  const [, before] = await Promise.all([
    lockAccounts(tx, [...new Set(notices.map(({ accountId }) => accountId))]),
    findByEvents(tx, ids),
  ])
  const overtaken = new Map<string, string>()
  const told = new Map([...before.values()].map(({ eventId, accountId }) => [eventId, accountId]))
  for (const notice of notices) {
    if (notice.event !== 'PAYMENT_FAIL') told.set(notice.eventId, notice.accountId)
    else if (!told.has(notice.eventId)) {
      const isTheirs = (eventId: string) => told.get(eventId) === notice.accountId
      const instead = paymentEvents(notice.orderId).find(isTheirs)
      if (instead) overtaken.set(notice.eventId, instead)
    }
  }
  return overtaken
}

/**
 * There is one message per event. An event's id that was used for something else, such as by a call
 * that anybody can make, does not keep the event from its message.
 */
async function tellAll(
  tx: Queryable,
  at: CommandContext,
  notices: readonly Notice[],
): Promise<Told[]> {
  const accountIds = new Set(notices.map(({ accountId }) => accountId))
  const [byEvent, contacts] = await Promise.all([
    tell(tx, at, notices, ({ eventId }) => eventId),
    findContacts(tx, [...accountIds]),
  ])
  const displaced = notices.filter((notice, index) => {
    const { message } = byEvent[index]!
    const mayBeApart = notice.source === 'event' || message.accountId !== notice.accountId
    return mayBeApart && !isAbout(message, notice)
  })
  const own = await tell(tx, at, displaced, ownId)
  const apart = new Map(displaced.map((notice, index) => [notice, own[index]!]))
  const found = notices.map((notice, index) => apart.get(notice) ?? byEvent[index]!)
  const letters = byEvent.concat(own).flatMap((one) => (one.isNew ? letterTo(contacts, one) : []))
  const allowed = await withinShare(tx, at.lettersPerHour, letters)
  await at.outbox.enqueue(tx, allowed)
  const suppressed = new Set(letters.filter((letter) => !allowed.includes(letter)).map(idOf))
  return found.map(({ message, isNew }) => ({
    ...{ message, isNew },
    isSuppressed: isNew && suppressed.has(message.eventId),
  }))
}

const idOf = ({ eventId }: OutboxMessage) => eventId

/** Writes the message of each notice under an id, or finds the one that has the id. */
async function tell(
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
  const written = await insertMessages(tx, [...wanted.values()])
  const fresh = new Map(written.map((message) => [message.eventId, message]))
  const told = await findByEvents(
    tx,
    [...wanted.keys()].filter((eventId) => !fresh.has(eventId)),
  )
  return notices.map((notice) => {
    const eventId = idOf(notice)
    const message = fresh.get(eventId)
    // Of two notices of one event in a batch the second is a repetition.
    fresh.delete(eventId)
    if (message) told.set(eventId, message)
    const isNew = message !== undefined
    return { message: told.get(eventId) as StoredMessage, isNew, notice }
  })
}

async function withinShare(
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

/** A letter keeps its Message-ID over all tries, so that mail systems can tell a repetition. */
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
