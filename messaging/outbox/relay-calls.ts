import { traceIds } from '../../contracts/trace-context.ts'
import { backoffMs, type Log, type Runtime } from '../../platform/async/runtime.ts'
import { createSignal } from '../../platform/async/signal.ts'
import type { Database } from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import { DEAD_LETTER_HEADER, storeDeadLetters } from '../dead-letters/dead-letters.ts'
import type { Lanes } from './lanes.ts'
import {
  type Attempted,
  type Delivery,
  laneOf,
  type NewRow,
  type Outbox,
  type OutboxRow,
  type Postponed,
} from './outbox.ts'

/**
 * Delivers calls and letters: one row at a time within a key, and keys concurrently. Rows that were just committed
 * are delivered at once, from memory. All other rows are read from the outbox by polls, and the same statement
 * writes the results of the deliveries that have ended.
 */
export type Deliver = (row: OutboxRow) => Promise<Delivery>

export interface CallsContext {
  readonly database: Database
  readonly schema: string
  readonly outbox: Outbox
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry: Telemetry
  readonly stopped: AbortSignal
  readonly lanes: Pick<Lanes, 'held'>
  /** Called after each attempt, successful or not. */
  readonly onAttempt: (eventId: string) => void
  /** Called when the results of attempts are in the database. */
  readonly onResultsWritten: () => void
  /** Milliseconds between polls while no commit announces new rows. */
  readonly idleMs: () => number
}

const MAX_BUSY_KEYS = 128
const RETRY_BASE_MS = 100
const RETRY_MAX_MS = 5_000
/** Results are written with the next poll, at most this long after the first result. */
const GATHER_MS = 25

/** Results of deliveries that are not written to the outbox yet. */
interface Results extends Attempted {
  readonly done: bigint[]
  readonly postponed: Postponed[]
  /** Keys whose deliveries all succeeded. */
  readonly deliveredKeys: string[]
  /** Keys with a postponed row. */
  readonly postponedKeys: string[]
}

const noResults = (): Results => ({ done: [], postponed: [], deliveredKeys: [], postponedKeys: [] })

/**
 * A key is busy from the start of its deliveries until their results are written to the outbox, so no later
 * row of that key can overtake an earlier one.
 */
export function relayCalls(context: CallsContext, carrier: 'http' | 'letter', deliver: Deliver) {
  const { outbox, database, runtime } = context
  const signal = createSignal(runtime)
  const busy = new Map<string, Promise<void>>()
  /** Busy keys that have more rows waiting in the outbox. */
  const hasMoreRows = new Set<string>()
  let results = noResults()
  let isFailing = false
  let lastRetrySoonMs = Number.NEGATIVE_INFINITY

  async function deliverInOrder(rows: readonly OutboxRow[]): Promise<void> {
    const key = rows[0]!.key
    let isPostponed = false
    for (const row of rows) {
      const delivery = await attempt(context, carrier, deliver, row)
      context.onAttempt(row.eventId)
      if (delivery.kind === 'retry') {
        isFailing = true
        isPostponed = true
        const waitMs = backoffMs(row.attempts, RETRY_BASE_MS, RETRY_MAX_MS, runtime.random())
        results.postponed.push({ id: row.id, waitMs, error: delivery.error })
        break
      }
      results.done.push(row.id)
      // Not after every success: otherwise, rows that keep failing for their own reasons would be retried
      // without any backoff.
      if (isFailing && runtime.monotonic() - lastRetrySoonMs >= RETRY_MAX_MS) {
        isFailing = false
        lastRetrySoonMs = runtime.monotonic()
        await outbox.retrySoon(database, carrier, context.lanes.held()).catch(() => undefined)
      }
    }
    results[isPostponed ? 'postponedKeys' : 'deliveredKeys'].push(key)
    const isUrgent = isPostponed || noneInFlight() || busy.size > MAX_BUSY_KEYS / 2
    if (hasMoreRows.delete(key) || isUrgent || context.stopped.aborted) signal.raise()
    else signal.raiseIn(GATHER_MS)
  }

  /** Whether all deliveries have ended, so waiting would not add further results to the next write. */
  const noneInFlight = () =>
    busy.size === results.deliveredKeys.length + results.postponedKeys.length

  function start(rows: readonly OutboxRow[]): void {
    for (const [key, ofKey] of Map.groupBy(rows, (row) => row.key)) {
      busy.set(key, deliverInOrder(ofKey))
    }
  }

  /** Starts delivering rows that were just committed. Returns false if a poll is needed for some of them. */
  function offer(rows: readonly NewRow[]): boolean {
    const lanes = new Set(context.lanes.held())
    const room = context.stopped.aborted ? 0 : Math.max(0, MAX_BUSY_KEYS - busy.size)
    const ready: OutboxRow[] = []
    for (const row of rows) {
      if (busy.has(row.key)) hasMoreRows.add(row.key)
      else if (row.isFirst && lanes.has(laneOf(row.key))) ready.push(row)
    }
    start(ready.slice(0, room))
    return Math.min(ready.length, room) === rows.length
  }

  /** Writes results and reads rows that are due, in one statement. */
  async function poll(written: Results, endedKeys: readonly string[]): Promise<OutboxRow[]> {
    const room = context.stopped.aborted
      ? 0
      : Math.max(0, MAX_BUSY_KEYS - busy.size + endedKeys.length)
    const lanes = room > 0 ? context.lanes.held() : []
    if (lanes.length === 0 && endedKeys.length === 0) return []
    const delivered = new Set(written.deliveredKeys)
    const busyKeys = [...busy.keys()].filter((key) => !delivered.has(key))
    const options = { lanes, busyKeys, room }
    const { rows, parked } = await outbox.takeCalls(database, carrier, written, options)
    // Parked rows took up the room of other rows, which the next poll will find.
    if (parked > 0 && rows.length < room) signal.raise()
    return rows
  }

  /**
   * A key may have become busy during the poll because one of its rows was offered, possibly the row that the
   * poll read.
   */
  function isNotStarted({ key }: OutboxRow): boolean {
    if (busy.has(key)) hasMoreRows.add(key)
    return !busy.has(key)
  }

  async function run(): Promise<void> {
    while (!context.stopped.aborted || busy.size > 0) {
      const written = results
      results = noResults()
      const endedKeys = [...written.deliveredKeys, ...written.postponedKeys]
      try {
        const rows = await poll(written, endedKeys)
        for (const key of endedKeys) {
          busy.delete(key)
          hasMoreRows.delete(key)
        }
        if (endedKeys.length > 0) context.onResultsWritten()
        start(rows.filter(isNotStarted))
        if (noneInFlight() && (busy.size > 0 || context.stopped.aborted)) continue
        // Commits during the poll, and most deliveries that ended during it, have raised the signal already.
        await signal.wait(isFailing ? RETRY_BASE_MS : context.idleMs())
      } catch (error) {
        context.log.warn({ err: error, carrier }, 'the relay cannot read or write its outbox')
        results = {
          done: [...written.done, ...results.done],
          postponed: [...written.postponed, ...results.postponed],
          deliveredKeys: [...written.deliveredKeys, ...results.deliveredKeys],
          postponedKeys: [...written.postponedKeys, ...results.postponedKeys],
        }
        if (context.stopped.aborted) break
        await runtime.sleep(RETRY_MAX_MS / 5, context.stopped)
      }
    }
    await Promise.all(busy.values())
  }

  return { carrier, signal, offer, poll: signal.raise, done: run() }
}

/** Makes one attempt. A row that can never succeed is stored as a dead letter first, and only then counts as done. */
async function attempt(
  context: CallsContext,
  carrier: 'http' | 'letter',
  deliver: Deliver,
  row: OutboxRow,
): Promise<Delivery> {
  try {
    const delivery = await deliver(row)
    if (delivery.kind === 'poison') {
      await storeDeadLetters(context.database, context.schema, [
        {
          id: row.headers[DEAD_LETTER_HEADER] ?? context.runtime.uuid(),
          source: 'outbox',
          topic: `${carrier}:${row.destination}`,
          partition: 0,
          offset: row.id,
          incarnation: '',
          key: row.key,
          value: encoder.encode(row.body),
          headers: row.headers,
          eventId: row.eventId,
          code: 'UNDELIVERABLE',
          reason: delivery.reason,
        },
      ])
      const about = { row: row.eventId, ...traceIds(row.headers) }
      context.log.error({ ...about, reason: delivery.reason }, 'a message was dead-lettered')
      context.telemetry.count('trifold_dead_letters_total', { source: 'outbox' })
    }
    if (delivery.kind === 'done')
      context.telemetry.count('trifold_outbox_delivered_total', { carrier })
    if (delivery.kind === 'retry')
      context.telemetry.count('trifold_outbox_failures_total', { carrier })
    return delivery
  } catch (error) {
    context.log.warn(
      { err: error, row: row.eventId, ...traceIds(row.headers) },
      'a delivery failed',
    )
    context.telemetry.count('trifold_outbox_failures_total', { carrier })
    return { kind: 'retry', error: String(error) }
  }
}

const encoder = new TextEncoder()
