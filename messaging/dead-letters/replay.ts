import type { UnknownEvent } from '../../contracts/events.ts'
import type { Log, Runtime } from '../../platform/async/runtime.ts'
import {
  type Database,
  partOf,
  type Queryable,
  transact,
} from '../../platform/database/database.ts'
import { noTracing, type Tracer } from '../../platform/telemetry/tracing.ts'
import {
  type Decode,
  type Handle,
  type Refusal,
  readMessage,
  refusalOf,
} from '../consumer/settlement.ts'
import { beginProcess } from '../message-spans.ts'
import type { Carrier, Outbox, OutboxMessage } from '../outbox/outbox.ts'
import type { Relay } from '../outbox/relay.ts'
import {
  DEAD_LETTER_HEADER,
  type DeadLetter,
  explainDeadLetter,
  lockDeadLetter,
  removeDeadLetter,
} from './dead-letters.ts'

/**
 * Handles a dead letter again, in the service that set it aside and nowhere else: what the consumer
 * would do with the message, in one transaction with the removal of the letter. A row of the outbox
 * goes back there. Key, headers and position stay, and with them the identity of the event, so a
 * replay changes nothing that was done before.
 */
export type Replay = (id: string, edit?: ReplayEdit) => Promise<Replayed>

export interface ReplayEdit {
  readonly body?: Uint8Array | undefined
  /** Sends a letter to the address that its customer has now. */
  readonly toCurrent?: boolean | undefined
}

/**
 * `handled`: it took effect. `queued`: it is back in the outbox, and comes back under its id where it
 * is rejected again. `refused`: the letter stays, with its bytes as they were and the new reason.
 */
export type Replayed =
  | { readonly kind: 'handled' | 'queued' }
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'unknown' }

export interface ReplayOptions<Body> {
  readonly database: Database
  readonly schema: string
  readonly decode: Decode<Body>
  readonly handle: Handle<Body>
  readonly outbox: Pick<Outbox, 'enqueue'>
  readonly relay: Pick<Relay, 'wake'>
  readonly runtime: Pick<Runtime, 'now'>
  readonly log: Log
  /** Where letters of a key go now; absent where a service sends none. */
  readonly currentAddress?: (tx: Queryable, key: string) => Promise<string | undefined>
  readonly group?: string
  readonly tracer?: Tracer
}

/** Rejects only with what may pass: the database is away, or its conflicts do not end. */
export function createReplay<Body>(options: ReplayOptions<Body>): Replay {
  const { database, schema, log } = options

  async function replay(id: string, edit: ReplayEdit): Promise<Replayed> {
    const isEdited = edit.body !== undefined
    try {
      const { replayed, afterCommit } = await transact(database, async (tx) => {
        // The lock makes a second replay wait, and then find nothing.
        const letter = await lockDeadLetter(tx, schema, id)
        if (letter === undefined) return { replayed: unknown }
        const message = edit.body ? { ...letter, value: edit.body } : letter
        const { refusal, afterCommit } = await handleAgain(tx, options, message, edit)
        if (refusal) return { replayed: await keep(tx, id, refusal, isEdited), afterCommit }
        await removeDeadLetter(tx, schema, id)
        const kind = letter.source === 'outbox' ? 'queued' : 'handled'
        return { replayed: { kind } as const, afterCommit }
      })
      runAfterCommit(afterCommit, log)
      return replayed
    } catch (error) {
      const refusal = refusalOf(error)
      if (refusal === undefined) throw error
      log.warn({ err: error, letter: id }, 'the replay of a dead letter failed')
      return keep(database, id, refusal, isEdited)
    }
  }

  async function keep(
    db: Queryable,
    id: string,
    { code, reason }: Refusal,
    isEdited: boolean,
  ): Promise<Replayed> {
    // The stored body is still the first one, which this reason does not speak of.
    const stored = isEdited ? `replayed with another body: ${reason}` : reason
    const isThere = await explainDeadLetter(db, schema, id, { code, reason: stored })
    return isThere ? { kind: 'refused', reason } : unknown
  }

  return async (id, edit = {}) => {
    const replayed = await replay(id, edit)
    if (replayed.kind !== 'unknown') log.info({ letter: id, ...replayed }, 'a letter was replayed')
    return replayed
  }
}

const unknown = { kind: 'unknown' } as const

const notALetter = { code: 'REFUSED', reason: 'only a letter has an address' } as const
const noAddress = { code: 'REFUSED', reason: 'the account has no contact' } as const

interface HandledAgain {
  readonly refusal?: Refusal
  readonly afterCommit?: (() => void) | undefined
}

async function handleAgain<Body>(
  tx: Queryable,
  options: ReplayOptions<Body>,
  letter: DeadLetter,
  { toCurrent }: ReplayEdit,
): Promise<HandledAgain> {
  const { decode, handle, outbox, relay, group, tracer = noTracing } = options
  if (toCurrent && !letter.topic.startsWith('letter:')) return { refusal: notALetter }
  if (letter.source === 'outbox') {
    const row = toOutbox(letter)
    const address = toCurrent ? await options.currentAddress?.(tx, row.key) : row.destination
    if (address === undefined) return { refusal: noAddress }
    await outbox.enqueue(tx, [{ ...row, destination: address }])
    return { afterCommit: () => relay.wake(tx) }
  }
  const read = readMessage(decode, letter)
  if ('unknownEvent' in read) return { refusal: unknownEvent(read) }
  if (!('event' in read)) return { refusal: read }
  const spans = beginProcess(tracer, group, [{ message: letter, read }])
  try {
    const { event } = spans.run[0]!.read
    const { poison, afterCommit } = (await handle(partOf(tx), [event])) ?? {}
    const reason = poison?.get(event)
    const refusal = reason === undefined ? undefined : ({ code: 'REFUSED', reason } as const)
    spans.end({ error: refusal?.code })
    return { afterCommit, ...(refusal && { refusal }) }
  } catch (error) {
    spans.end({ error })
    throw error
  }
}

/** The consumer would skip it, but here an operator is waiting for an effect. */
const unknownEvent = ({ unknownEvent: name }: UnknownEvent): Refusal => ({
  code: 'UNREADABLE',
  reason: `the event ${JSON.stringify(name)} is unknown`,
})

function runAfterCommit(afterCommit: (() => void) | undefined, log: Log): void {
  try {
    afterCommit?.()
  } catch (error) {
    log.error({ err: error }, 'what follows a commit failed')
  }
}

/** Letters that were stored before they had an event id say it in their headers, if at all. */
function toOutbox({ id, topic, key, value, headers, eventId }: DeadLetter): OutboxMessage {
  const end = topic.indexOf(':')
  return {
    carrier: topic.slice(0, end) as Carrier,
    destination: topic.slice(end + 1),
    key: key ?? '',
    eventId: eventId ?? headers['idempotency-key'] ?? headers.ce_id ?? id,
    body: new TextDecoder('utf-8', { ignoreBOM: true }).decode(value ?? new Uint8Array()),
    headers: { ...headers, [DEAD_LETTER_HEADER]: id },
  }
}
