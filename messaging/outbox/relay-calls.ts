import { traceIds } from '../../contracts/trace-context.ts'
import { backoffMs, type Log, type Runtime } from '../../platform/async/runtime.ts'
import { createSignal } from '../../platform/async/signal.ts'
import type { Database } from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import { DEAD_LETTER_HEADER, storeDeadLetters } from '../dead-letters/dead-letters.ts'
import type { Lanes } from './lanes.ts'
import {
  type Delivery,
  laneOf,
  type NewRow,
  type Outbox,
  type OutboxRow,
  type Postponed,
  type Tried,
} from './outbox.ts'

/**
 * Calls and letters: each row is a delivery of its own, in order within a key, keys side by side. Rows
 * that were just committed are begun with at once, from memory; all others are read from the outbox,
 * which is also where what became of each is written.
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
  readonly wasTried: (eventId: string) => void
  /** What became of calls is in the database. */
  readonly wereWritten: () => void
  /** How long it waits, when nothing is to be done, before it looks for rows of which it was not told. */
  readonly idleMs: () => number
}

const CALLS_AT_ONCE = 128
const RETRY_BASE_MS = 100
const RETRY_MAX_MS = 5_000
/** That a row is delivered is written with whatever else there is to do, or after so long a time. */
const GATHER_MS = 25

interface Ended extends Tried {
  readonly done: bigint[]
  readonly postponed: Postponed[]
  readonly free: string[]
  /** Keys of which a row is postponed. */
  readonly held: string[]
}

const nothingTried = (): Ended => ({ done: [], postponed: [], free: [], held: [] })

/**
 * A key is busy from the moment its rows are begun with until what became of them is written, so
 * nothing of that key can overtake.
 */
export function relayCalls(at: CallsContext, carrier: 'http' | 'letter', deliver: Deliver) {
  const { outbox, database, runtime } = at
  const signal = createSignal(runtime)
  const busy = new Map<string, Promise<void>>()
  /** Busy keys that have more rows. */
  const awaited = new Set<string>()
  let tried = nothingTried()
  let failing = false
  let retriedAt = Number.NEGATIVE_INFINITY

  async function deliverInOrder(rows: readonly OutboxRow[]): Promise<void> {
    const key = rows[0]!.key
    let isHeld = false
    for (const row of rows) {
      const delivery = await attempt(at, carrier, deliver, row)
      at.wasTried(row.eventId)
      if (delivery.kind === 'retry') {
        failing = true
        isHeld = true
        const waitMs = backoffMs(row.attempts, RETRY_BASE_MS, RETRY_MAX_MS, runtime.random())
        tried.postponed.push({ id: row.id, waitMs, error: delivery.error })
        break
      }
      tried.done.push(row.id)
      // Not at each success: rows that fail for themselves would never come to rest.
      if (failing && runtime.monotonic() - retriedAt >= RETRY_MAX_MS) {
        failing = false
        retriedAt = runtime.monotonic()
        await outbox.retrySoon(database, carrier, at.lanes.held()).catch(() => undefined)
      }
    }
    tried[isHeld ? 'held' : 'free'].push(key)
    const isUrgent = isHeld || allHaveEnded() || busy.size > CALLS_AT_ONCE / 2
    if (awaited.delete(key) || isUrgent || at.stopped.aborted) signal.raise()
    else signal.raiseIn(GATHER_MS)
  }

  /** Nothing that is under way would come to be written together with these. */
  const allHaveEnded = () => busy.size === tried.free.length + tried.held.length

  function begin(rows: readonly OutboxRow[]): void {
    for (const [key, ofKey] of Map.groupBy(rows, (row) => row.key)) {
      busy.set(key, deliverInOrder(ofKey))
    }
  }

  /** Begins with rows that were just committed; false where the outbox has to be read for some. */
  function offer(rows: readonly NewRow[]): boolean {
    const lanes = new Set(at.lanes.held())
    const room = at.stopped.aborted ? 0 : Math.max(0, CALLS_AT_ONCE - busy.size)
    const ready: OutboxRow[] = []
    for (const row of rows) {
      if (busy.has(row.key)) awaited.add(row.key)
      else if (row.isFirst && lanes.has(laneOf(row.key))) ready.push(row)
    }
    begin(ready.slice(0, room))
    return Math.min(ready.length, room) === rows.length
  }

  /** Writes what became of rows and reads what is due, in one statement. */
  async function take(flushing: Ended, ended: readonly string[]): Promise<OutboxRow[]> {
    const room = at.stopped.aborted ? 0 : Math.max(0, CALLS_AT_ONCE - busy.size + ended.length)
    const lanes = room > 0 ? at.lanes.held() : []
    if (lanes.length === 0 && ended.length === 0) return []
    const free = new Set(flushing.free)
    const busyKeys = [...busy.keys()].filter((key) => !free.has(key))
    const wanted = { lanes, busyKeys, room }
    const { rows, parked } = await outbox.takeCalls(database, carrier, flushing, wanted)
    // Those that are parked hid others.
    if (parked > 0 && rows.length < room) signal.raise()
    return rows
  }

  /** A row of a key that was begun with from memory, meanwhile, may be the very one. */
  function isNotBegun({ key }: OutboxRow): boolean {
    if (busy.has(key)) awaited.add(key)
    return !busy.has(key)
  }

  async function run(): Promise<void> {
    while (!at.stopped.aborted || busy.size > 0) {
      const flushing = tried
      tried = nothingTried()
      const ended = [...flushing.free, ...flushing.held]
      try {
        const rows = await take(flushing, ended)
        for (const key of ended) {
          busy.delete(key)
          awaited.delete(key)
        }
        if (ended.length > 0) at.wereWritten()
        begin(rows.filter(isNotBegun))
        if (allHaveEnded() && (busy.size > 0 || at.stopped.aborted)) continue
        // Rows that were committed meanwhile, and most calls that ended, have raised the signal.
        await signal.wait(failing ? RETRY_BASE_MS : at.idleMs())
      } catch (error) {
        at.log.warn({ err: error, carrier }, 'the relay cannot read or write its outbox')
        tried = {
          done: [...flushing.done, ...tried.done],
          postponed: [...flushing.postponed, ...tried.postponed],
          free: [...flushing.free, ...tried.free],
          held: [...flushing.held, ...tried.held],
        }
        if (at.stopped.aborted) break
        await runtime.sleep(RETRY_MAX_MS / 5, at.stopped)
      }
    }
    await Promise.all(busy.values())
  }

  return { carrier, signal, offer, look: signal.raise, done: run() }
}

/** One try; a row that can never succeed is set aside first and only then counts as done. */
async function attempt(
  at: CallsContext,
  carrier: 'http' | 'letter',
  deliver: Deliver,
  row: OutboxRow,
): Promise<Delivery> {
  try {
    const delivery = await deliver(row)
    if (delivery.kind === 'poison') {
      await storeDeadLetters(at.database, at.schema, [
        {
          id: row.headers[DEAD_LETTER_HEADER] ?? at.runtime.uuid(),
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
      at.log.error({ ...about, reason: delivery.reason }, 'a message was set aside')
      at.telemetry.count('trifold_dead_letters_total', { source: 'outbox' })
    }
    if (delivery.kind === 'done') at.telemetry.count('trifold_outbox_delivered_total', { carrier })
    if (delivery.kind === 'retry') at.telemetry.count('trifold_outbox_failures_total', { carrier })
    return delivery
  } catch (error) {
    at.log.warn({ err: error, row: row.eventId, ...traceIds(row.headers) }, 'a delivery failed')
    at.telemetry.count('trifold_outbox_failures_total', { carrier })
    return { kind: 'retry', error: String(error) }
  }
}

const encoder = new TextEncoder()
