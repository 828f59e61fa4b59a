import { traceIds } from '../contracts/trace-context.ts'
import type { Database, Queryable } from '../platform/database.ts'
import { backoffMs, type Log, type Runtime, WOKEN } from '../platform/runtime.ts'
import { createSignal, type Signal } from '../platform/signal.ts'
import type { Telemetry } from '../platform/telemetry.ts'
import { noTracing, type Tracer } from '../platform/tracing.ts'
import { createWaiters } from '../platform/waiters.ts'
import type { Bus } from './bus.ts'
import { setAside } from './dead-letters.ts'
import { holdLanes } from './lanes.ts'
import { beginSend } from './message-spans.ts'
import {
  type Carrier,
  type Delivery,
  LANES,
  type Outbox,
  type OutboxRow,
  type Postponed,
} from './outbox.ts'
import { observeOutbox } from './outbox-metrics.ts'
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

export type Deliver = (row: OutboxRow) => Promise<Delivery>

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
const CALLS_AT_ONCE = 128
/** Who has been heard of for so short a time may not have its share of the lanes yet. */
const PEER_HEARD_MS = 10_000
/** How long an idle relay waits before it looks for rows that another process left behind. */
const IDLE_MS = 1_000
const RETRY_BASE_MS = 100
const RETRY_MAX_MS = 5_000
const LAST_SEND_MS = 2_000

type Loop = { readonly carrier: Carrier; readonly signal: Signal; readonly done: Promise<void> }

export function startRelay(options: RelayOptions): Relay {
  const { runtime, log, outbox } = options
  const closing = new AbortController()
  const loops: Loop[] = []
  const wakeAll = () => {
    for (const { signal } of loops) signal.raise()
  }
  const lanes = holdLanes({ ...options, instance: runtime.uuid(), onGain: wakeAll })
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
    wasTried: watching.wasTried,
    wereWritten: () => {
      if (hasPeers()) peers.tellTried()
    },
  }
  const begin = (carrier: Carrier, run: (signal: Signal) => Promise<void>) => {
    const signal = createSignal(runtime)
    loops.push({ carrier, signal, done: run(signal) })
  }
  const { bus, call, letter } = options
  if (bus) begin('broker', (signal) => relayToBroker(context, signal, bus))
  if (call) begin('http', (signal) => relayCalls(context, signal, 'http', call))
  if (letter) begin('letter', (signal) => relayCalls(context, signal, 'letter', letter))
  observeOutbox(
    options,
    loops.map(({ carrier }) => carrier),
  )

  return {
    wake(committed) {
      const written = outbox.writtenBy(committed)
      for (const { carrier, signal } of loops) if (written.has(carrier)) signal.raise()
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

interface LoopContext extends RelayOptions {
  readonly stopped: AbortSignal
  readonly lanes: () => readonly number[]
  readonly wasTried: (eventId: string) => void
  /** What became of calls is in the database. */
  readonly wereWritten: () => void
}

/** select, send, then the delete of that batch together with the next select. */
async function relayToBroker(at: LoopContext, signal: Signal, bus: Bus): Promise<void> {
  const { outbox, database, telemetry, runtime } = at
  let acknowledged: bigint[] = []
  let failures = 0
  while (!at.stopped.aborted || acknowledged.length > 0) {
    try {
      const lanes = at.stopped.aborted ? [] : at.lanes()
      const rows =
        lanes.length + acknowledged.length === 0
          ? []
          : await outbox.takeForBroker(database, acknowledged, lanes, BROKER_BATCH)
      acknowledged = []
      if (rows.length > 0) {
        await send(at, bus, rows)
        acknowledged = rows.map(({ id }) => id)
        telemetry.count('trifold_outbox_delivered_total', { carrier: 'broker' }, rows.length)
        telemetry.observe('trifold_relay_batch_size', rows.length)
        for (const { eventId } of rows) at.wasTried(eventId)
      } else {
        await signal.wait(IDLE_MS)
      }
      if (failures > 0) at.log.info({ failures }, 'the relay reaches the broker again')
      failures = 0
    } catch (error) {
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

interface Tried {
  readonly done: bigint[]
  readonly postponed: Postponed[]
  /** Keys whose rows are done: what else there is of them can be read as these are removed. */
  readonly free: string[]
  /** Keys of which a row is postponed. */
  readonly held: string[]
}

const nothingTried = (): Tried => ({ done: [], postponed: [], free: [], held: [] })

/**
 * Calls run on their own while the loop goes on; a key is busy from the moment its rows are read
 * until what became of them is written, so nothing of that key can overtake.
 */
async function relayCalls(
  at: LoopContext,
  signal: Signal,
  carrier: 'http' | 'letter',
  deliver: Deliver,
): Promise<void> {
  const { outbox, database, runtime } = at
  const busy = new Map<string, Promise<void>>()
  let tried = nothingTried()
  let failing = false
  let hurriedAt = Number.NEGATIVE_INFINITY

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
        const due = new Date(runtime.now() + waitMs)
        tried.postponed.push({ id: row.id, due, error: delivery.error })
        break
      }
      tried.done.push(row.id)
      // Not at each success: rows that fail for themselves would never come to rest.
      if (failing && runtime.now() - hurriedAt >= RETRY_MAX_MS) {
        failing = false
        hurriedAt = runtime.now()
        await outbox.hurry(database, carrier, runtime.now()).catch(() => undefined)
      }
    }
    tried[isHeld ? 'held' : 'free'].push(key)
    signal.raise()
  }

  while (!at.stopped.aborted || busy.size > 0) {
    const flushing = tried
    tried = nothingTried()
    const ended = [...flushing.free, ...flushing.held]
    try {
      const room = at.stopped.aborted ? 0 : CALLS_AT_ONCE - (busy.size - ended.length)
      const lanes = room > 0 ? at.lanes() : []
      const free = new Set(flushing.free)
      const busyKeys = [...busy.keys()].filter((key) => !free.has(key))
      const isIdle = lanes.length === 0 && ended.length === 0
      const rows = isIdle
        ? []
        : await outbox.takeCalls(database, carrier, flushing, lanes, busyKeys, runtime.now(), room)
      for (const key of ended) busy.delete(key)
      if (ended.length > 0) at.wereWritten()
      for (const group of byKey(rows)) busy.set(group[0]!.key, deliverInOrder(group))
      // Rows that were committed meanwhile, and calls that ended, have raised the signal.
      if (!at.stopped.aborted || busy.size > 0) {
        await signal.wait(failing ? RETRY_BASE_MS : IDLE_MS)
      }
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

/** One try; a row that can never succeed is set aside first and only then counts as done. */
async function attempt(
  at: LoopContext,
  carrier: Carrier,
  deliver: Deliver,
  row: OutboxRow,
): Promise<Delivery> {
  try {
    const delivery = await deliver(row)
    if (delivery.kind === 'poison') {
      await setAside(at.database, at.schema, [
        {
          id: at.runtime.uuid(),
          source: 'outbox',
          topic: `${carrier}:${row.destination}`,
          partition: 0,
          offset: row.id,
          key: row.key,
          value: encoder.encode(row.body),
          headers: row.headers,
          eventId: row.eventId,
          code: 'UNDELIVERABLE',
          reason: delivery.reason,
          created: new Date(at.runtime.now()),
        },
      ])
      const about = { row: row.eventId, ...traceIds(row.headers) }
      at.log.error({ ...about, reason: delivery.reason }, 'a message was set aside')
      at.telemetry.count('trifold_dead_letters_total', { source: 'outbox' })
    }
    const failed = delivery.kind === 'retry'
    const name = failed ? 'trifold_outbox_failures_total' : 'trifold_outbox_delivered_total'
    at.telemetry.count(name, { carrier })
    return delivery
  } catch (error) {
    at.log.warn({ err: error, row: row.eventId, ...traceIds(row.headers) }, 'a delivery failed')
    at.telemetry.count('trifold_outbox_failures_total', { carrier })
    return { kind: 'retry', error: String(error) }
  }
}

function byKey(rows: readonly OutboxRow[]): OutboxRow[][] {
  const groups = new Map<string, OutboxRow[]>()
  for (const row of rows) {
    const group = groups.get(row.key)
    if (group) group.push(row)
    else groups.set(row.key, [row])
  }
  return [...groups.values()]
}
