import { backoffMs, type Log, type Runtime, WOKEN } from '../../platform/async/runtime.ts'
import { createSignal } from '../../platform/async/signal.ts'
import type { Database } from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import { noTracing, type Tracer } from '../../platform/telemetry/tracing.ts'
import type { Bus } from '../bus.ts'
import { beginSend } from '../message-spans.ts'
import type { Lanes } from './lanes.ts'
import { laneOf, type NewRow, type Outbox, type OutboxRow } from './outbox.ts'

/**
 * Events: whole batches, one at a time, in the order of their ids. Rows that were just committed are sent
 * from memory where nothing older of their key is left; all others, and the removal of what was
 * acknowledged, are for a look at the outbox, which goes on while a batch is on its way.
 */
export interface BrokerContext {
  readonly database: Database
  readonly outbox: Outbox
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry: Telemetry
  readonly tracer?: Tracer
  readonly stopped: AbortSignal
  readonly lanes: Pick<Lanes, 'held' | 'term'>
  /** Rows of these lanes are being taken and sent; none: no more. */
  readonly sending: (from: readonly number[]) => void
  readonly wasTried: (eventId: string) => void
  /** How long it waits, when nothing is to be done, before it looks for rows of which it was not told. */
  readonly idleMs: () => number
}

const BATCH = 1000
/** So long those that have left stay: alone, their removal would cost as much as a look. */
const GATHER_MS = 50
const RETRY_BASE_MS = 100
/** Short, since a broker that is back has much to catch up with, and one that is away refuses at once. */
const RETRY_MAX_MS = 1_000
const LAST_SEND_MS = 2_000

/** A batch on its way to the broker. */
interface Flight {
  readonly from: readonly number[]
  readonly ids: readonly bigint[]
  readonly landed: Promise<void>
  giveUp(reason: Error): void
}

export function relayToBroker(at: BrokerContext, bus: Bus) {
  const { outbox, database, telemetry, runtime, lanes } = at
  const signal = createSignal(runtime)
  /** Rows to be sent from memory, of lanes that were held all the time in this term. */
  let ready: OutboxRow[] = []
  let term = lanes.term()
  /** A row up to here may be one that a look has found before its commit was told of. */
  let lookedTo = 0n
  let isLookDue = true
  let flight: Flight | undefined
  let acknowledged: bigint[] = []
  let removal: 'none' | 'coming' | 'due' = 'none'
  let failures = 0
  const over = new AbortController()

  /** Takes rows that were just committed, to be sent when the signal is raised; leaves the others to a look. */
  function offer(rows: readonly NewRow[]): false {
    forgetPastTerms()
    const held = new Set(lanes.held())
    const fit = rows.filter((row) => row.isFirst && row.id > lookedTo && held.has(laneOf(row.key)))
    const hasRoom = failures === 0 && ready.length + fit.length <= BATCH
    if (hasRoom) ready.push(...fit)
    if (!hasRoom || fit.length < rows.length) isLookDue = true
    return false
  }

  /** All that is committed is in the outbox, too. */
  function forget(): void {
    if (ready.length > 0) isLookDue = true
    ready = []
  }

  function forgetPastTerms(): void {
    if (term !== lanes.term()) forget()
    term = lanes.term()
  }

  function takeReady(): OutboxRow[] {
    const rows = ready
    ready = []
    return rows
  }

  const mustLook = () =>
    isLookDue || removal === 'due' || at.stopped.aborted || acknowledged.length >= BATCH

  /** Others must not have these lanes as long as something of them is taken or on its way. */
  function hold(from: readonly number[]): void {
    at.sending([...new Set([...from, ...(flight?.from ?? [])])])
  }

  /** Removes what was acknowledged and finds what is there now and not on its way. */
  async function look(from: readonly number[]): Promise<OutboxRow[]> {
    isLookDue = false
    if (removal === 'due') removal = 'none'
    if (from.length + acknowledged.length === 0) return []
    const gone = acknowledged
    acknowledged = []
    try {
      const rows = await outbox.takeForBroker(database, gone, flight?.ids ?? [], from, BATCH)
      if (rows.length === BATCH) isLookDue = true
      for (const { id } of rows) if (id > lookedTo) lookedTo = id
      return rows
    } catch (error) {
      acknowledged = [...gone, ...acknowledged]
      throw error
    }
  }

  function launch(rows: readonly OutboxRow[], from: readonly number[]): void {
    if (rows.length === 0) return
    const ids = rows.map(({ id }) => id)
    // The database is asked for what comes next before these are encoded, and works meanwhile.
    const { promise: late, reject: giveUp } = Promise.withResolvers<never>()
    const sending = () => send(at, bus, rows, late)
    const landed = (isLookDue ? runtime.turn().then(sending) : sending()).then(() => {
      acknowledged.push(...ids)
      telemetry.count('trifold_outbox_delivered_total', { carrier: 'broker' }, rows.length)
      telemetry.observe('trifold_relay_batch_size', rows.length)
      for (const { eventId } of rows) at.wasTried(eventId)
    })
    // Whoever waits for it sees its fault.
    landed.catch(() => undefined)
    flight = { from, ids, landed, giveUp }
    if (at.stopped.aborted) void endInTime()
    hold([])
  }

  async function land(): Promise<void> {
    if (flight === undefined) return
    try {
      await flight.landed
    } finally {
      flight = undefined
    }
    if (failures > 0) at.log.info({ failures }, 'the relay reaches the broker again')
    failures = 0
  }

  /** Sends what is ready, and finds what comes next while that is on its way. */
  async function step(): Promise<void> {
    forgetPastTerms()
    const from = at.stopped.aborted ? [] : lanes.held()
    if (from.length > 0 && flight === undefined && !isLookDue) launch(takeReady(), from)
    if (mustLook()) {
      hold(from)
      const termOfLook = term
      const found = await look(from)
      await land()
      forgetPastTerms()
      const isOurs = term === termOfLook && from.join() === lanes.held().join()
      if (isOurs) {
        const known = new Set(found.map(({ id }) => id))
        launch([...found, ...takeReady().filter(({ id }) => !known.has(id))], from)
      } else {
        // Lanes that came or went meanwhile are not those of which others know that something is taken.
        forget()
        isLookDue = true
      }
    }
    // Nothing else is to be found now; what is offered meanwhile goes together in the next batch.
    if (!mustLook()) await land()
    hold([])
    if (acknowledged.length > 0) void removeSoon()
  }

  async function removeSoon(): Promise<void> {
    if (removal !== 'none') return
    removal = 'coming'
    await runtime.sleep(GATHER_MS, over.signal)
    removal = acknowledged.length > 0 ? 'due' : 'none'
    if (removal === 'due') signal.raise()
  }

  /** There may be rows that nobody has offered. */
  function lookSoon(): void {
    isLookDue = true
    signal.raise()
  }

  async function run(): Promise<void> {
    while (!at.stopped.aborted || acknowledged.length > 0 || flight !== undefined) {
      try {
        await step()
        if (mustLook() || flight !== undefined) continue
        const isRaised = await signal.wait(at.idleMs())
        if (!isRaised) isLookDue = true
      } catch (error) {
        await land().catch(() => undefined)
        at.sending([])
        forget()
        isLookDue = true
        if (failures === 0) at.log.warn({ err: error }, 'the relay cannot deliver to the broker')
        telemetry.count('trifold_outbox_failures_total', { carrier: 'broker' })
        // What was acknowledged but not removed will be sent again, under the same event ids.
        if (at.stopped.aborted) return
        const waitMs = backoffMs(failures, RETRY_BASE_MS, RETRY_MAX_MS, runtime.random())
        failures += 1
        await runtime.sleep(waitMs, at.stopped)
      }
    }
  }

  /** A broker that says nothing does not hold up the end; what is in doubt stays in the outbox. */
  async function endInTime(): Promise<void> {
    const last = flight
    await runtime.sleep(LAST_SEND_MS, over.signal)
    last?.giveUp(new Error('the relay is closed before it had an answer'))
  }

  at.stopped.addEventListener('abort', endInTime, { once: true })
  const done = run().finally(() => over.abort(WOKEN))
  return { carrier: 'broker' as const, signal, offer, look: lookSoon, done }
}

async function send(
  at: BrokerContext,
  bus: Bus,
  rows: readonly OutboxRow[],
  late: Promise<never>,
): Promise<void> {
  const spans = beginSend(at.tracer ?? noTracing, rows)
  try {
    await Promise.race([bus.send(spans.rows.map(toBusMessage)), late])
    spans.end()
  } catch (error) {
    spans.end(error)
    throw error
  }
}

const encoder = new TextEncoder()

function toBusMessage(row: OutboxRow) {
  const { destination: topic, key, headers } = row
  return { topic, key, headers, value: encoder.encode(row.body) }
}
