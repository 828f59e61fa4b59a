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
  lockDeadLetter,
  removeDeadLetter,
  updateReason,
} from './dead-letters.ts'

/**
 * Handles a dead letter again, only in the service that stored it. A message is handled as the consumer would
 * handle it, in one transaction with the removal of the dead letter. An outbox row goes back into the outbox.
 * Key, headers, position and therefore the event id stay the same, so effects that the message already had
 * are deduplicated.
 */
export type Replay = (id: string, edit?: ReplayEdit) => Promise<ReplayResult>

export interface ReplayEdit {
  /** Replaces the stored body. */
  readonly body?: Uint8Array | undefined
  /** Sends a letter to the current contact of its account instead of the stored address. */
  readonly toCurrent?: boolean | undefined
}

/**
 * `handled`: it took effect. `queued`: it is back in the outbox, and becomes a dead letter under its old id if it
 * is rejected again. `refused`: the dead letter stays, with its stored body and the new reason. `unknown`: there is
 * no such dead letter.
 */
export type ReplayResult =
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
  /** The current address for letters of a key (the account). Absent if the service sends no letters. */
  readonly currentAddress?: (tx: Queryable, key: string) => Promise<string | undefined>
  readonly group?: string
  readonly tracer?: Tracer
}

/**
 * The returned function rejects only with temporary faults: the database is down, or conflicts do not end.
 */
export function createReplay<Body>(options: ReplayOptions<Body>): Replay {
  const { database, schema, log } = options

  async function replay(id: string, edit: ReplayEdit): Promise<ReplayResult> {
    const isEdited = edit.body !== undefined
    try {
      const { result, afterCommit } = await transact(database, async (tx) => {
        // The lock makes a concurrent replay wait until this one has removed the row.
        const deadLetter = await lockDeadLetter(tx, schema, id)
        if (deadLetter === undefined) return { result: unknown }
        const message = edit.body ? { ...deadLetter, value: edit.body } : deadLetter
        const { refusal, afterCommit } = await handleAgain(tx, options, message, edit)
        if (refusal) return { result: await keep(tx, id, refusal, isEdited), afterCommit }
        await removeDeadLetter(tx, schema, id)
        const kind = deadLetter.source === 'outbox' ? 'queued' : 'handled'
        return { result: { kind } as const, afterCommit }
      })
      runAfterCommit(afterCommit, log)
      return result
    } catch (error) {
      const refusal = refusalOf(error)
      if (refusal === undefined) throw error
      log.warn({ err: error, letter: id }, 'replaying a dead letter failed')
      return keep(database, id, refusal, isEdited)
    }
  }

  /** Keeps the dead letter and stores the new reason. */
  async function keep(
    db: Queryable,
    id: string,
    { code, reason }: Refusal,
    isEdited: boolean,
  ): Promise<ReplayResult> {
    // The reason is about the edited body, but the stored body stays the original one.
    const stored = isEdited ? `replayed with another body: ${reason}` : reason
    const exists = await updateReason(db, schema, id, { code, reason: stored })
    return exists ? { kind: 'refused', reason } : unknown
  }

  return async (id, edit = {}) => {
    const result = await replay(id, edit)
    if (result.kind !== 'unknown') log.info({ letter: id, ...result }, 'replayed a dead letter')
    return result
  }
}

const unknown = { kind: 'unknown' } as const

const notALetter = { code: 'REFUSED', reason: 'only a letter has an address' } as const
const noContact = { code: 'REFUSED', reason: 'the account has no contact' } as const

interface HandledAgain {
  /** Why the replay failed; absent if the message was handled. */
  readonly refusal?: Refusal
  readonly afterCommit?: (() => void) | undefined
}

async function handleAgain<Body>(
  tx: Queryable,
  options: ReplayOptions<Body>,
  deadLetter: DeadLetter,
  { toCurrent }: ReplayEdit,
): Promise<HandledAgain> {
  const { decode, handle, outbox, relay, group, tracer = noTracing } = options
  if (toCurrent && !deadLetter.topic.startsWith('letter:')) return { refusal: notALetter }
  if (deadLetter.source === 'outbox') {
    const row = toOutbox(deadLetter)
    const address = toCurrent ? await options.currentAddress?.(tx, row.key) : row.destination
    if (address === undefined) return { refusal: noContact }
    await outbox.enqueue(tx, [{ ...row, destination: address }])
    return { afterCommit: () => relay.wake(tx) }
  }
  const read = readMessage(decode, deadLetter)
  if ('unknownEvent' in read) return { refusal: unknownEvent(read) }
  if (!('event' in read)) return { refusal: read }
  const spans = beginProcess(tracer, group, [{ message: deadLetter, read }])
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

/** A consumer skips unknown events, but an operator who replays one expects an effect. */
const unknownEvent = ({ unknownEvent: name }: UnknownEvent): Refusal => ({
  code: 'UNREADABLE',
  reason: `the event ${JSON.stringify(name)} is unknown`,
})

function runAfterCommit(afterCommit: (() => void) | undefined, log: Log): void {
  try {
    afterCommit?.()
  } catch (error) {
    log.error({ err: error }, 'after-commit hook failed')
  }
}

/** Dead letters that were stored before the column event_id existed may have the id in their headers. */
function toOutbox({ id, topic, key, value, headers, eventId }: DeadLetter): OutboxMessage {
  const colon = topic.indexOf(':')
  return {
    carrier: topic.slice(0, colon) as Carrier,
    destination: topic.slice(colon + 1),
    key: key ?? '',
    eventId: eventId ?? headers['idempotency-key'] ?? headers.ce_id ?? id,
    body: new TextDecoder('utf-8', { ignoreBOM: true }).decode(value ?? new Uint8Array()),
    headers: { ...headers, [DEAD_LETTER_HEADER]: id },
  }
}
