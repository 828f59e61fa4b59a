import { type TraceContext, traceOf } from '../../contracts/trace-context.ts'
import type { Outbox, OutboxMessage } from '../../messaging/outbox.ts'
import type { Queryable } from '../../platform/database.ts'
import { type Notice, textOf } from './message.ts'
import {
  findByEvents,
  findContacts,
  insertMessages,
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
  readonly now: number
}

/** The message of a notice: a new one, or the one that its event had before. */
export interface Told {
  readonly message: NewMessage
  readonly isNew: boolean
}

export async function writeMessages(
  tx: Queryable,
  at: CommandContext,
  notices: readonly Notice[],
): Promise<Told[]> {
  const wanted = new Map<string, NewMessage>()
  const traces = new Map<string, TraceContext>()
  for (const notice of notices) {
    const { eventId, accountId, event } = notice
    if (wanted.has(eventId)) continue
    traces.set(eventId, traceOf(notice))
    wanted.set(eventId, { id: at.newId(), eventId, accountId, event, text: textOf(notice) })
  }
  const accountIds = new Set(notices.map(({ accountId }) => accountId))
  const [written, contacts] = await Promise.all([
    insertMessages(tx, [...wanted.values()], at.now),
    findContacts(tx, [...accountIds]),
  ])
  await at.outbox.enqueue(
    tx,
    written.flatMap((message) => letterTo(contacts, message, traces.get(message.eventId))),
  )

  const fresh = new Map<string, NewMessage>(written.map((message) => [message.eventId, message]))
  const told = await findByEvents(
    tx,
    [...wanted.keys()].filter((eventId) => !fresh.has(eventId)),
  )
  return notices.map(({ eventId }) => {
    const message = fresh.get(eventId)
    // Of two notices of one event in a batch the second is a repetition.
    fresh.delete(eventId)
    if (message) told.set(eventId, message)
    return { message: told.get(eventId) as NewMessage, isNew: message !== undefined }
  })
}

/** A letter keeps its Message-ID over all tries, so that mail systems can tell a repetition. */
function letterTo(
  contacts: ReadonlyMap<string, string>,
  message: StoredMessage,
  trace: TraceContext | undefined,
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
        subject: SUBJECTS[message.event] ?? 'About your account',
        date: message.created.toISOString(),
        ...trace,
      },
    },
  ]
}

const SUBJECTS: Readonly<Record<string, string>> = {
  ORDER_PAID: 'Your order is paid',
  PAYMENT_FAIL: 'Your order is not paid',
  DEPOSIT_ACCEPTED: 'Your deposit is accepted',
  PAYMENT_REFUNDED: 'Your order is refunded',
}
