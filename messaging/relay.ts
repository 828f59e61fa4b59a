import type { Database, Queryable } from '../platform/database.ts'
import { backoffMs, type Log, type Runtime, WOKEN } from '../platform/runtime.ts'
import { createSignal, type Signal } from '../platform/signal.ts'
import type { Telemetry } from '../platform/telemetry.ts'
import { noTracing, type Tracer } from '../platform/tracing.ts'
import { createWaiters } from '../platform/waiters.ts'
import type { Bus } from './bus.ts'
import { holdLanes } from './lanes.ts'
import { beginSend } from './message-spans.ts'
import { type Carrier, LANES, type NewRow, type Outbox, type OutboxRow } from './outbox.ts'
import { observeOutbox } from './outbox-metrics.ts'
import { type CallsContext, type Deliver, relayCalls } from './relay-calls.ts'
import { listenToPeers } from './relay-peers.ts'

/**
 * The relay empties the outbox: it reads rows of its lanes, hands them to their carriers and removes
 * what was acknowledged. The broker takes whole batches; calls and letters go one by one, in order
 * within a key, keys side by side. A row whose delivery is in doubt is delivered again.
 */
export interface Relay {
  /** Call after the commit of a transaction that wrote rows; delivery starts at once. */
  wake(committed: Queryable): void
  /** Watches the first try of rows that are about to be committed. */
  watch(eventIds: readonly string[]): Watch
  /** Whether other instances are there, or may be. */
  hasPeers(): boolean
  close(): Promise<void>
}

export interface Watch {
  /** Resolves when each row was tried once, delivered or not, or after so many milliseconds. */
  tried(limitMs: number): Promise<void>
  /** Forgets the watch: its transaction failed. */
  cancel(): void
}

export interface RelayOptions {
  readonly database: Database
  readonly schema: string
  readonly outbox: Outbox
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry: Telemetry
  readonly tracer?: Tracer
  readonly soleProcess: boolean
  readonly bus?: Bus
  readonly call?: Deliver
  readonly letter?: Deliver
}

const BROKER_BATCH = 1000
/** Who has been heard of for so short a time may not have its share of the lanes yet. */
const PEER_HEARD_MS = 10_000
/** How long an idle relay waits before it looks for rows that another process left behind. */
const IDLE_MS = 1_000
/** So long do rows for which nobody waits gather before they leave, and those that have left stay. */
const GATHER_MS = 50
const RETRY_BASE_MS = 100
const RETRY_MAX_MS = 5_000
const LAST_SEND_MS = 2_000

interface Loop {
  readonly carrier: Carrier
  readonly signal: Signal
  /** Begins with rows that were just committed; says whether it has taken them all. */
  readonly offer?: (rows: readonly NewRow[]) => boolean
  readonly done: Promise<void>
}

export function startRelay(options: RelayOptions): Relay {
  const { runtime, log, outbox } = options
  const closing = new AbortController()
  const loops: Loop[] = []
  const wakeAll = () => {
    for (const { signal } of loops) signal.raise()
  }
  let onItsWay: readonly number[] = []
  const lanes = holdLanes({
    ...options,
    ...{ instance: runtime.uuid(), onGain: wakeAll, onItsWay: () => onItsWay },
  })
  let heardMs = Number.NEGATIVE_INFINITY
  const hasPeers = () => lanes.held().length < LANES || runtime.now() - heardMs < PEER_HEARD_MS
  const onRows = () => {
    heardMs = runtime.now()
    wakeAll()
  }
  const watching = watchTries(options)
  const peers = listenToPeers({ ...options, onRows, onTried: watching.look })
  const context: LoopContext = {
    ...options,
    stopped: closing.signal,
    lanes: () => lanes.held(),
    sending(from) {
      onItsWay = from
    },
    wasTried: watching.wasTried,
    wereWritten: () => {
      if (hasPeers()) peers.tellTried()
    },
  }
  const { bus, call, letter } = options
  if (bus) {
    const signal = createSignal(runtime)
    loops.push({ carrier: 'broker', signal, done: relayToBroker(context, signal, bus) })
  }
  if (call) loops.push(relayCalls(context, 'http', call))
  if (letter) loops.push(relayCalls(context, 'letter', letter))
  observeOutbox(
    options,
    loops.map(({ carrier }) => carrier),
  )

  return {
    wake(committed) {
      const written = outbox.writtenBy(committed)
      for (const { carrier, signal, offer } of loops) {
        if (!written.has(carrier) || offer?.(outbox.newRows(committed, carrier))) continue
        if (outbox.isUrgent(committed, carrier)) signal.raise()
        else signal.raiseIn(GATHER_MS)
      }
      const own = new Set(lanes.held())
      const isForOthers = [...written.values()].some((into) => !into.isSubsetOf(own))
      if (isForOthers) peers.wakeOthers()
    },
    watch: (eventIds) => watching.watch(eventIds, hasPeers),
    hasPeers,
    async close() {
      closing.abort()
      wakeAll()
      await Promise.all(loops.map(({ done }) => done))
      peers.close()
      await lanes.close()
      log.debug({}, 'the relay is closed')
    },
  }
}

/** Who waits for the first try of which rows, whichever instance makes it. */
function watchTries({ runtime, outbox, database, log }: RelayOptions) {
  const tries = createWaiters<true>(runtime)
  /** Rows that are committed: the others cannot be looked for yet. */
  const committed = new Set<string>()

  function look(): void {
    const waiting = tries.keys().filter((eventId) => committed.has(eventId))
    if (waiting.length === 0) return
    outbox.untried(database, waiting).then(
      (untried) => {
        for (const eventId of waiting) if (!untried.has(eventId)) tries.resolve(eventId, true)
      },
      (err) => log.debug({ err }, 'the tries of others could not be looked for'),
    )
  }

  return {
    look,
    wasTried: (eventId: string) => tries.resolve(eventId, true),
    watch(eventIds: readonly string[], hasPeers: () => boolean): Watch {
      const waiters = eventIds.map((id) => tries.wait(id))
      return {
        cancel() {
          for (const waiter of waiters) waiter.cancel()
        },
        async tried(limitMs) {
          for (const eventId of eventIds) committed.add(eventId)
          // Another instance may have made the try, and told of it, before this one listened.
          if (hasPeers()) look()
          await Promise.all(waiters.map((waiter) => waiter.within(limitMs)))
          for (const eventId of eventIds) committed.delete(eventId)
        },
      }
    },
  }
}

interface LoopContext extends RelayOptions, CallsContext {
  /** Rows of these lanes are being taken and sent to the broker; none: no more. */
  readonly sending: (from: readonly number[]) => void
}

/** select, send, then the delete of that batch together with the next select, or a moment later. */
async function relayToBroker(at: LoopContext, signal: Signal, bus: Bus): Promise<void> {
  const { outbox, database, telemetry, runtime } = at
  let acknowledged: bigint[] = []
  let failures = 0
  while (!at.stopped.aborted || acknowledged.length > 0) {
    try {
      const lanes = at.stopped.aborted ? [] : at.lanes()
      at.sending(lanes)
      const rows =
        lanes.length + acknowledged.length === 0
          ? []
          : await outbox.takeForBroker(database, acknowledged, lanes, BROKER_BATCH)
      acknowledged = []
      if (rows.length > 0) {
        await send(at, bus, rows)
        at.sending([])
        acknowledged = rows.map(({ id }) => id)
        telemetry.count('trifold_outbox_delivered_total', { carrier: 'broker' }, rows.length)
        telemetry.observe('trifold_relay_batch_size', rows.length)
        for (const { eventId } of rows) at.wasTried(eventId)
        // With what comes next, where that is soon: alone, their removal would cost as much.
        if (rows.length < BROKER_BATCH) await signal.wait(GATHER_MS)
      } else {
        at.sending([])
        await signal.wait(IDLE_MS)
      }
      if (failures > 0) at.log.info({ failures }, 'the relay reaches the broker again')
      failures = 0
    } catch (error) {
      at.sending([])
      if (failures === 0) at.log.warn({ err: error }, 'the relay cannot deliver to the broker')
      telemetry.count('trifold_outbox_failures_total', { carrier: 'broker' })
      // What was acknowledged but not removed will be sent again, under the same event ids.
      if (at.stopped.aborted) return
      const waitMs = backoffMs(failures, RETRY_BASE_MS, RETRY_MAX_MS, runtime.random())
      await runtime.sleep(waitMs, at.stopped)
      failures += 1
    }
  }
}

async function send(at: LoopContext, bus: Bus, rows: readonly OutboxRow[]): Promise<void> {
  const spans = beginSend(at.tracer ?? noTracing, rows)
  try {
    await orStopped(at, bus.send(spans.rows.map(toBusMessage)))
    spans.end()
  } catch (error) {
    spans.end(error)
    throw error
  }
}

/** A broker that says nothing does not hold up the end; what is in doubt stays in the outbox. */
async function orStopped({ stopped, runtime }: LoopContext, sent: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<never>()
  const over = new AbortController()
  const onStop = async () => {
    await runtime.sleep(LAST_SEND_MS, over.signal)
    if (!over.signal.aborted) late.reject(new Error('the relay is closed before it had an answer'))
  }
  stopped.addEventListener('abort', onStop)
  if (stopped.aborted) void onStop()
  try {
    await Promise.race([sent, late.promise])
  } finally {
    over.abort(WOKEN)
    stopped.removeEventListener('abort', onStop)
  }
}

const encoder = new TextEncoder()

function toBusMessage(row: OutboxRow) {
  const { destination: topic, key, headers } = row
  return { topic, key, headers, value: encoder.encode(row.body) }
}
