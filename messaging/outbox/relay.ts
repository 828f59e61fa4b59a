import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { Signal } from '../../platform/async/signal.ts'
import { createWaiters } from '../../platform/async/waiters.ts'
import type { Database, Queryable } from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import type { Tracer } from '../../platform/telemetry/tracing.ts'
import type { Bus } from '../bus.ts'
import { holdLanes } from './lanes.ts'
import { observeOutbox } from './metrics.ts'
import { type Carrier, LANES, type NewRow, type Outbox } from './outbox.ts'
import { listenToPeers } from './peers.ts'
import { type CallsContext, type Deliver, relayCalls } from './relay-calls.ts'
import { type BrokerContext, relayToBroker } from './relay-to-broker.ts'

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
  attempted(limitMs: number): Promise<void>
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
  readonly place?: string
  readonly bus?: Bus
  readonly call?: Deliver
  readonly letter?: Deliver
}

/** Who has been heard of for so short a time may not have its share of the lanes yet. */
const PEER_HEARD_MS = 10_000
/** Others may have left rows in lanes of ours, and died before they told of them. */
const LOOK_AMONG_PEERS_MS = 1_000
/** Alone there are only rows whose commit went through while its answer was lost. */
const LOOK_ALONE_MS = 5_000
/** So long do rows for which nobody waits gather before they leave. */
const GATHER_MS = 50

interface Loop {
  readonly carrier: Carrier
  readonly signal: Signal
  /** Takes rows that were just committed; true where it goes on with them all without a signal. */
  offer(rows: readonly NewRow[]): boolean
  /** Looks for rows that were not offered to it. */
  look(): void
  readonly done: Promise<void>
}

export function startRelay(options: RelayOptions): Relay {
  const { runtime, log, outbox } = options
  const closing = new AbortController()
  const loops: Loop[] = []
  const wakeAll = () => {
    for (const loop of loops) loop.look()
  }
  let onItsWay: readonly number[] = []
  const lanes = holdLanes({
    ...options,
    ...{ instance: runtime.uuid(), onGain: wakeAll, onItsWay: () => onItsWay },
  })
  let heardMs = Number.NEGATIVE_INFINITY
  const hasPeers = () =>
    lanes.held().length < LANES || runtime.monotonic() - heardMs < PEER_HEARD_MS
  const onRows = () => {
    heardMs = runtime.monotonic()
    wakeAll()
  }
  const watching = watchTries(options)
  const peers = listenToPeers({ ...options, onRows, onTried: watching.look })
  const context: CallsContext & BrokerContext = {
    ...options,
    stopped: closing.signal,
    lanes,
    sending(from) {
      onItsWay = from
    },
    wasTried: watching.wasTried,
    idleMs: () => (hasPeers() ? LOOK_AMONG_PEERS_MS : LOOK_ALONE_MS),
    wereWritten: () => {
      if (hasPeers()) peers.tellTried()
    },
  }
  const { bus, call, letter } = options
  if (bus) loops.push(relayToBroker(context, bus))
  if (call) loops.push(relayCalls(context, 'http', call))
  if (letter) loops.push(relayCalls(context, 'letter', letter))
  observeOutbox(
    options,
    loops.map(({ carrier }) => carrier),
  )

  return {
    wake(committed) {
      const written = outbox.writtenBy(committed)
      if (written.has('http')) watching.wereCommitted(outbox.newRows(committed, 'http'))
      for (const { carrier, signal, offer } of loops) {
        if (!written.has(carrier) || offer(outbox.newRows(committed, carrier))) continue
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
  const watched = new Set<string>()
  /** Watched rows that are committed, with their ids; others cannot be found yet. */
  const committed = new Map<string, bigint>()

  function look(): void {
    const waiting = [...committed]
    if (waiting.length === 0) return
    outbox
      .unattempted(
        database,
        waiting.map(([, id]) => id),
      )
      .then(
        (unattempted) => {
          for (const [eventId, id] of waiting)
            if (!unattempted.has(id)) tries.resolve(eventId, true)
        },
        (err) => log.debug({ err }, 'the tries of others could not be looked for'),
      )
  }

  function forget(eventIds: readonly string[]): void {
    for (const eventId of eventIds) {
      watched.delete(eventId)
      committed.delete(eventId)
    }
  }

  return {
    look,
    wereCommitted(rows: readonly NewRow[]) {
      for (const { eventId, id } of rows) if (watched.has(eventId)) committed.set(eventId, id)
    },
    wasTried: (eventId: string) => tries.resolve(eventId, true),
    watch(eventIds: readonly string[], hasPeers: () => boolean): Watch {
      const waiters = eventIds.map((id) => tries.wait(id))
      for (const eventId of eventIds) watched.add(eventId)
      return {
        cancel() {
          forget(eventIds)
          for (const waiter of waiters) waiter.cancel()
        },
        async attempted(limitMs) {
          // Another instance may have made the try, and told of it, before this one listened.
          if (hasPeers()) look()
          await Promise.all(waiters.map((waiter) => waiter.within(limitMs)))
          forget(eventIds)
        },
      }
    },
  }
}
