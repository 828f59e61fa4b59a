import { backoffMs, type Log, type Runtime, WOKEN } from '../../platform/async/runtime.ts'
import { createSignal } from '../../platform/async/signal.ts'
import type { Database } from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import { noTracing, type Tracer } from '../../platform/telemetry/tracing.ts'
import type { Bus } from '../bus.ts'
import { beginSend } from '../message-spans.ts'
import type { Lanes } from './lanes.ts'
import type { Outbox, OutboxRow } from './outbox.ts'

/**
 * Sends events to the broker: batches of outbox rows, one at a time, in the order of their ids. While a
 * batch is in flight, the next poll deletes the rows that the broker acknowledged before it and reads the
 * rows that follow it, so the database and the broker work side by side.
 */
export interface BrokerContext {
  readonly database: Database
  readonly outbox: Outbox
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry: Telemetry
  readonly tracer?: Tracer
  readonly stopped: AbortSignal
  readonly lanes: Pick<Lanes, 'held' | 'epoch'>
  /** Reports the lanes whose rows are being read or sent; other instances must not take them over yet. */
  readonly setLanesInFlight: (lanes: readonly number[]) => void
  readonly onAttempt: (eventId: string) => void
  /** Milliseconds between polls while no commit announces new rows. */
  readonly idleMs: () => number
}

const BATCH = 1000
/**
 * How long acknowledged rows wait to be deleted by the next poll; a separate delete would cost as much as a
 * poll.
 */
const DELETE_WITHIN_MS = 50
const RETRY_BASE_MS = 100
/**
 * Short, because a backlog has built up when the broker is back, and attempts cost little: a broker that is
 * down refuses connections at once.
 */
const RETRY_MAX_MS = 1_000
const LAST_SEND_MS = 2_000

/** A batch that the broker has not acknowledged yet. */
interface Flight {
  readonly lanes: readonly number[]
  readonly ids: readonly bigint[]
  readonly acknowledged: Promise<void>
  giveUp(reason: Error): void
}

export function relayToBroker(at: BrokerContext, bus: Bus) {
  const { outbox, database, telemetry, runtime, lanes } = at
  const signal = createSignal(runtime)
  let isPollDue = true
  let flight: Flight | undefined
  /** Ids that the next poll deletes. */
  let acknowledged: bigint[] = []
  let failures = 0
  const ended = new AbortController()

  /** Other instances must not take over lanes whose rows are being read or are in flight. */
  function reportLanes(polled: readonly number[]): void {
    at.setLanesInFlight([...new Set([...polled, ...(flight?.lanes ?? [])])])
  }

  /** Deletes the acknowledged rows and reads the next rows that are not in flight. */
  async function poll(from: readonly number[]): Promise<OutboxRow[]> {
    isPollDue = false
    if (from.length + acknowledged.length === 0) return []
    const deleted = acknowledged
    acknowledged = []
    try {
      const rows = await outbox.takeForBroker(database, deleted, flight?.ids ?? [], from, BATCH)
      if (rows.length === BATCH) isPollDue = true
      return rows
    } catch (error) {
      acknowledged = [...deleted, ...acknowledged]
      throw error
    }
  }

  function launch(rows: readonly OutboxRow[], from: readonly number[]): void {
    if (rows.length === 0) return
    flight = startFlight(at, bus, rows, from, isPollDue)
    if (at.stopped.aborted) void limitLastSend()
    reportLanes([])
  }

  async function land(): Promise<void> {
    if (flight === undefined) return
    const { ids } = flight
    try {
      await flight.acknowledged
      acknowledged.push(...ids)
    } finally {
      flight = undefined
    }
    if (failures > 0) at.log.info({ failures }, 'the relay reaches the broker again')
    failures = 0
  }

  /**
   * Polls while the last batch is in flight, waits for its acknowledgment, and sends the rows that the poll
   * found.
   */
  async function step(): Promise<void> {
    const from = at.stopped.aborted ? [] : lanes.held()
    const epoch = lanes.epoch()
    reportLanes(from)
    const rows = await poll(from)
    await land()
    // If lanes changed hands during the poll, another instance may have sent their rows, so the rows are
    // polled again.
    if (epoch === lanes.epoch() && from.join() === lanes.held().join()) launch(rows, from)
    else isPollDue = true
    // If there are no more rows to read, all commits that happen while the batch is in flight share the next
    // poll.
    if (!isPollDue) await land()
    reportLanes([])
    if (acknowledged.length > 0) signal.raiseIn(DELETE_WITHIN_MS)
  }

  function pollSoon(): void {
    isPollDue = true
    signal.raise()
  }

  async function run(): Promise<void> {
    while (!at.stopped.aborted || acknowledged.length > 0 || flight !== undefined) {
      try {
        await step()
        if (isPollDue || flight !== undefined || at.stopped.aborted) continue
        await signal.wait(at.idleMs())
      } catch (error) {
        await land().catch(() => undefined)
        at.setLanesInFlight([])
        isPollDue = true
        if (failures === 0) at.log.warn({ err: error }, 'the relay cannot deliver to the broker')
        telemetry.count('trifold_outbox_failures_total', { carrier: 'broker' })
        // Rows that were acknowledged but not deleted are sent again, under the same event ids.
        if (at.stopped.aborted) return
        const waitMs = backoffMs(failures, RETRY_BASE_MS, RETRY_MAX_MS, runtime.random())
        failures += 1
        await runtime.sleep(waitMs, at.stopped)
      }
    }
  }

  /** An unresponsive broker does not hold up the shutdown; rows in doubt stay in the outbox. */
  async function limitLastSend(): Promise<void> {
    const last = flight
    await runtime.sleep(LAST_SEND_MS, ended.signal)
    last?.giveUp(new Error('the relay was closed before the broker acknowledged the batch'))
  }

  at.stopped.addEventListener('abort', limitLastSend, { once: true })
  const done = run().finally(() => ended.abort(WOKEN))
  return {
    carrier: 'broker' as const,
    signal,
    offer(): false {
      isPollDue = true
      return false
    },
    poll: pollSoon,
    done,
  }
}

function startFlight(
  at: BrokerContext,
  bus: Bus,
  rows: readonly OutboxRow[],
  lanes: readonly number[],
  isPollDue: boolean,
): Flight {
  const { promise: givenUp, reject: giveUp } = Promise.withResolvers<never>()
  const sending = () => send(at, bus, rows, givenUp)
  // The next poll is sent to the database before this batch is encoded.
  const acknowledged = isPollDue ? at.runtime.turn().then(sending) : sending()
  // `land` throws its error.
  acknowledged.catch(() => undefined)
  return { lanes, ids: rows.map(({ id }) => id), acknowledged, giveUp }
}

async function send(
  at: BrokerContext,
  bus: Bus,
  rows: readonly OutboxRow[],
  givenUp: Promise<never>,
): Promise<void> {
  const spans = beginSend(at.tracer ?? noTracing, rows)
  try {
    await Promise.race([bus.send(spans.rows.map(toBusMessage)), givenUp])
    spans.end()
  } catch (error) {
    spans.end(error)
    throw error
  }
  at.telemetry.count('trifold_outbox_delivered_total', { carrier: 'broker' }, rows.length)
  at.telemetry.observe('trifold_relay_batch_size', rows.length)
  for (const { eventId } of rows) at.onAttempt(eventId)
}

const encoder = new TextEncoder()

function toBusMessage(row: OutboxRow) {
  const { destination: topic, key, headers } = row
  return { topic, key, headers, value: encoder.encode(row.body) }
}
