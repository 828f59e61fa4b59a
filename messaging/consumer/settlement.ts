import type { Received, UnknownEvent } from '../../contracts/events.ts'
import { traceContextOf, traceIds } from '../../contracts/trace-context.ts'
import { createOutage } from '../../platform/async/outage.ts'
import { backoffMs, type Log, type Runtime } from '../../platform/async/runtime.ts'
import {
  type Database,
  DatabaseError,
  partOf,
  type Queryable,
} from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import { noTracing, type Tracer } from '../../platform/telemetry/tracing.ts'
import type { Batch, BusMessage } from '../bus.ts'
import { type NewDeadLetter, storeDeadLetters } from '../dead-letters/dead-letters.ts'
import { beginProcess } from '../message-spans.ts'
import { createIncarnations, type IdentifiedMessage } from './incarnations.ts'

/**
 * Applies a run of messages to the database in one transaction. If the transaction fails, the run is split
 * until the message that cannot succeed is alone and becomes a dead letter. A temporary failure is retried
 * until it has passed.
 */
export interface Handled<Body> {
  /** Events that can never succeed, each with its reason. They become dead letters in the same transaction. */
  readonly poison?: ReadonlyMap<Received<Body>, string>
  /** Runs after the commit, for example to wake the relay or to resolve waiters. */
  readonly afterCommit?: () => void
}

/** Applies events. They are in offset order within each partition, and so in order for each key. */
export type Handle<Body> = (
  tx: Queryable,
  events: readonly Received<Body>[],
  // biome-ignore lint/suspicious/noConfusingVoidType: a handler with nothing to add returns nothing
) => Promise<Handled<Body> | void>

/** Returns the event, an unknown event to skip, or the reason why the message is not a valid event. */
export type Decode<Body> = (message: IdentifiedMessage) => Received<Body> | UnknownEvent | string

export type DeadLetterCode = 'UNREADABLE' | 'REFUSED' | 'STATEMENT_INVALID' | 'HANDLER_FAILED'

export interface Refusal {
  readonly code: DeadLetterCode
  readonly reason: string
}

export interface Item<Body> {
  readonly message: IdentifiedMessage
  readonly read: { readonly event: Received<Body> } | UnknownEvent | Refusal
}

export interface SettlementOptions<Body> {
  readonly database: Database
  readonly schema: string
  readonly group: string
  readonly decode: Decode<Body>
  readonly handle: Handle<Body>
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry?: Pick<Telemetry, 'count' | 'observe'> | undefined
  readonly tracer?: Tracer | undefined
  readonly backoff: { readonly baseMs: number; readonly maxMs: number }
  /** Aborted when no further attempts should be made. */
  readonly stopped: AbortSignal
}

/** `divided`: the run failed, spans several partitions, and must be settled partition by partition. */
export type Outcome = 'settled' | 'stopped' | 'divided'

const CONFLICT_RETRIES = 5
const CONFLICT_BACKOFF_MS = 5
/** Attempts at a single message whose handler throws, because the fault may be temporary. */
const HANDLER_ATTEMPTS = 3
/** Unknown events and fields are logged once per name. After this many names they are only counted. */
const MAX_UNKNOWN_NAMES = 100

export function createSettlement<Body>(options: SettlementOptions<Body>) {
  const { database, schema, runtime, log, telemetry, stopped, backoff } = options
  const { group, tracer = noTracing } = options
  const outage = createOutage(log, 'the database')
  const reportUnknown = createUnknownReport(log, telemetry)
  const identify = createIncarnations(database, schema)
  const pauseMs = (failures: number) =>
    backoffMs(failures, backoff.baseMs, backoff.maxMs, runtime.random())

  /** Attempts the whole run in one transaction. Resolves with the error if the transaction failed. */
  async function attempt(items: readonly Item<Body>[]): Promise<{ error: unknown } | undefined> {
    const spans = beginProcess(tracer, group, items)
    const { run } = spans
    const events = run.flatMap(({ read }) => ('event' in read ? [read.event] : []))
    let handled: Handled<Body> | undefined
    let deadLetters: NewDeadLetter[] = []
    let stored: ReadonlySet<string> = new Set()
    try {
      await database.transaction(async (tx) => {
        // If messages were unreadable, dead letters are written after the handler's statements, so the
        // handler must not send the commit with its last statements.
        const handlerTx = events.length < run.length ? partOf(tx) : tx
        handled = (events.length > 0 && (await options.handle(handlerTx, events))) || undefined
        deadLetters = deadLettersOf(run, handled?.poison, runtime.uuid)
        stored = await storeDeadLetters(tx, schema, deadLetters)
      })
    } catch (error) {
      spans.end({ error })
      return { error }
    }
    spans.end({ refusalOf: (message) => codeOf(deadLetters, message) })
    outage.ended()
    // Dead letters that an earlier delivery stored were reported at that time.
    const newLetters = deadLetters.filter(({ id }) => stored.has(id))
    for (const { message, read } of run) reportUnknown(message.topic, read)
    reportSettled(options, run, newLetters)
    try {
      handled?.afterCommit?.()
    } catch (error) {
      log.error({ err: error }, 'after-commit hook failed')
    }
    return undefined
  }

  /**
   * Settles messages in their order, also when the run is split: a message is settled only after all messages of
   * its partition before it. Calls `onRetry` before each wait for a retry.
   */
  async function settle(run: readonly Item<Body>[], onRetry: () => void): Promise<Outcome> {
    const failures = { unavailable: 0, conflict: 0, fault: 0 }
    for (;;) {
      const failure = await attempt(run)
      if (failure === undefined) return 'settled'
      if (stopped.aborted) return 'stopped'
      for (const topic of countByTopic(run).keys()) {
        telemetry?.count('trifold_consumer_retries_total', { topic })
      }
      const { error } = failure
      const kind = error instanceof DatabaseError ? error.kind : 'fault'
      const refusal = refusalOf(error)
      let waitMs = 0
      if (kind === 'conflict' && failures.conflict < CONFLICT_RETRIES) {
        waitMs = backoffMs(
          failures.conflict++,
          CONFLICT_BACKOFF_MS,
          backoff.maxMs,
          runtime.random(),
        )
      } else if (kind !== 'unavailable' && run.length > 1) {
        return divide(run, onRetry)
      } else if (kind === 'fault' && ++failures.fault < HANDLER_ATTEMPTS) {
        waitMs = pauseMs(failures.fault)
      } else if (refusal && 'event' in run[0]!.read) {
        return settle([{ message: run[0]!.message, read: refusal }], onRetry)
      } else {
        // This includes failures to store a dead letter: the partition waits so that the message is not lost.
        outage.failed(error)
        waitMs = pauseMs(failures.unavailable++)
      }
      onRetry()
      await runtime.sleep(waitMs, stopped)
      if (stopped.aborted) return 'stopped'
    }
  }

  async function divide(run: readonly Item<Body>[], onRetry: () => void): Promise<Outcome> {
    const { topic, partition } = run[0]!.message
    const isOnePartition = run.every((item) => isAt(item.message, topic, partition))
    if (!isOnePartition) return 'divided'
    const middle = run.length >> 1
    for (const half of [run.slice(0, middle), run.slice(middle)]) {
      const outcome = await settle(half, onRetry)
      if (outcome !== 'settled') return outcome
    }
    return 'settled'
  }

  /**
   * Decodes the messages of batches for `settle`. It retries while the database is down, and returns undefined
   * if the consumer is stopped during that time.
   */
  async function read(
    batches: readonly Batch[],
    onRetry: () => void,
  ): Promise<Item<Body>[] | undefined> {
    for (;;) {
      try {
        const messages = await identify(batches)
        return messages.map((message) => ({ message, read: readMessage(options.decode, message) }))
      } catch (error) {
        const failures = outage.failed(error)
        onRetry()
        await runtime.sleep(pauseMs(failures), stopped)
        if (stopped.aborted) return undefined
      }
    }
  }

  return { read, settle, isDatabaseDown: () => outage.isOngoing() }
}

function deadLettersOf<Body>(
  run: readonly Item<Body>[],
  poison: Handled<Body>['poison'],
  newId: () => string,
): NewDeadLetter[] {
  return run.flatMap(({ message, read }) => {
    if ('unknownEvent' in read) return []
    const reason = 'event' in read ? poison?.get(read.event) : read.reason
    if (reason === undefined) return []
    const code = 'event' in read ? ('REFUSED' satisfies DeadLetterCode) : read.code
    const origin = { id: newId(), source: 'broker', eventId: null } as const
    return [{ incarnation: '', ...message, ...origin, code, reason }]
  })
}

function reportSettled(
  { telemetry, log }: Pick<SettlementOptions<unknown>, 'telemetry' | 'log'>,
  run: readonly Item<unknown>[],
  deadLetters: readonly NewDeadLetter[],
): void {
  for (const [topic, count] of countByTopic(run)) {
    telemetry?.observe('trifold_consumer_batch_size', count, { topic })
    telemetry?.count('trifold_consumer_messages_total', { topic }, count)
  }
  if (deadLetters.length === 0) return
  telemetry?.count('trifold_dead_letters_total', { source: 'broker' }, deadLetters.length)
  for (const { topic, partition, offset, code, reason, headers } of deadLetters) {
    const at = `${topic}/${partition}/${offset}`
    log.error(
      { at, code, reason, ...traceIds(traceContextOf(headers)) },
      'a message was dead-lettered',
    )
  }
}

/** Counts events and fields that this version does not know and ignores, and logs each name once. */
function createUnknownReport(log: Log, telemetry: SettlementOptions<unknown>['telemetry']) {
  const logged = new Set<string>()
  function report(topic: string, name: string, sentence: string): void {
    const key = `${topic}/${name}`
    if (logged.has(key) || logged.size >= MAX_UNKNOWN_NAMES) return
    logged.add(key)
    log.warn({ topic, name: name.slice(0, 100) }, sentence)
  }
  return (topic: string, read: Item<unknown>['read']): void => {
    if ('unknownEvent' in read) {
      telemetry?.count('trifold_consumer_unknown_events_total', { topic })
      report(topic, read.unknownEvent, 'skipped an event that this version does not know')
    } else if ('event' in read && read.event.unknownFields) {
      telemetry?.count('trifold_consumer_unknown_fields_total', { topic })
      const [field = ''] = read.event.unknownFields
      report(topic, field, 'ignored a field that this version does not know')
    }
  }
}

/** The code of a message's dead letter; undefined if it has none. */
function codeOf(deadLetters: readonly NewDeadLetter[], message: BusMessage): string | undefined {
  const { topic, partition, offset } = message
  return deadLetters.find((one) => isAt(one, topic, partition) && one.offset === offset)?.code
}

const isAt = (message: Pick<BusMessage, 'topic' | 'partition'>, topic: string, partition: number) =>
  message.topic === topic && message.partition === partition

/** Decodes a message. Returns its event, the name of an unknown event, or why the message is unreadable. */
export function readMessage<Body>(
  decode: Decode<Body>,
  message: IdentifiedMessage,
): Item<Body>['read'] {
  try {
    const event = decode(message)
    if (typeof event === 'string') return { code: 'UNREADABLE', reason: event }
    return 'unknownEvent' in event ? event : { event }
  } catch (error) {
    return { code: 'UNREADABLE', reason: String(error) }
  }
}

/** Why the single message that caused an error can never succeed; undefined if a retry may succeed. */
export function refusalOf(error: unknown): Refusal | undefined {
  const reason = String(error)
  if (!(error instanceof DatabaseError)) return { code: 'HANDLER_FAILED', reason }
  return error.kind === 'invalid' ? { code: 'STATEMENT_INVALID', reason } : undefined
}

function countByTopic(run: readonly Item<unknown>[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { message } of run) counts.set(message.topic, (counts.get(message.topic) ?? 0) + 1)
  return counts
}
