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
import { PEER_HEARD_MS, POLL_ALONE_MS, POLL_WITH_PEERS_MS } from './timing.ts'

/**
 * The relay empties the outbox: it reads the rows of its lanes, delivers them through their carriers and
 * deletes those that were acknowledged. The broker gets whole batches. Calls and letters are delivered one by
 * one within a key and concurrently across keys. If the relay cannot tell whether a row was delivered, it
 * sends the row again.
 */
export interface Relay {
  /** Starts the delivery of rows for the broker, if there is a bus, and of the calls and letters that have a carrier. */
  start(carriers: { readonly http?: Deliver; readonly letter?: Deliver }, bus?: Bus): void
  /** To be called after the commit of a transaction that wrote rows. Delivery starts at once. */
  wake(committed: Queryable): void
  /** Lets the caller wait for the first attempt at rows that it is about to commit. */
  watch(eventIds: readonly string[]): Watch
  /** Whether other instances of this service are running, or may be. */
  hasPeers(): boolean
  close(): Promise<void>
}

export interface Watch {
  /** Resolves when every row was attempted once, successfully or not, or after `limitMs`. */
  attempted(limitMs: number): Promise<void>
  /** Ends the watch; to be called when the transaction has failed. */
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
}

/** How long rows that no request waits for are gathered before they are sent. */
const GATHER_MS = 50

interface Loop {
  readonly carrier: Carrier
  readonly signal: Signal
  /** Reports rows that were just committed. Returns true if all of them are being delivered, so no poll is needed. */
  offer(rows: readonly NewRow[]): boolean
  /** Polls for rows that were not offered, soon. */
  poll(): void
  readonly done: Promise<void>
}

/**
 * Creates a relay that delivers no rows before `start`, so that the deliveries can themselves use the relay.
 */
export function createRelay(options: RelayOptions): Relay {
  const { runtime, log, outbox } = options
  const closing = new AbortController()
  const loops: Loop[] = []
  const pollAll = () => {
    for (const loop of loops) loop.poll()
  }
  let lanesInFlight: readonly number[] = []
  const lanes = holdLanes({
    ...options,
    instance: runtime.uuid(),
    onGain: pollAll,
    lanesInFlight: () => lanesInFlight,
  })
  let peerHeardMs = Number.NEGATIVE_INFINITY
  const hasPeers = () =>
    lanes.held().length < LANES || runtime.monotonic() - peerHeardMs < PEER_HEARD_MS
  const onRows = () => {
    peerHeardMs = runtime.monotonic()
    pollAll()
  }
  const watches = watchAttempts(options)
  const peers = listenToPeers({ ...options, onRows, onAttempted: watches.poll })
  const context: CallsContext & BrokerContext = {
    ...options,
    stopped: closing.signal,
    lanes,
    setLanesInFlight(inFlight) {
      lanesInFlight = inFlight
    },
    onAttempt: watches.onAttempt,
    idleMs: () => (hasPeers() ? POLL_WITH_PEERS_MS : POLL_ALONE_MS),
    onResultsWritten: () => {
      if (hasPeers()) peers.notifyAttempted()
    },
  }

  return {
    start({ http, letter }, bus) {
      if (bus) loops.push(relayToBroker(context, bus))
      if (http) loops.push(relayCalls(context, 'http', http))
      if (letter) loops.push(relayCalls(context, 'letter', letter))
      observeOutbox(
        options,
        loops.map(({ carrier }) => carrier),
      )
    },
    wake(committed) {
      const written = outbox.writtenBy(committed)
      if (written.has('http')) watches.onCommit(outbox.newRows(committed, 'http'))
      for (const { carrier, signal, offer } of loops) {
        if (!written.has(carrier) || offer(outbox.newRows(committed, carrier))) continue
        if (outbox.isUrgent(committed, carrier)) signal.raise()
        else signal.raiseIn(GATHER_MS)
      }
      const own = new Set(lanes.held())
      const isForOthers = [...written.values()].some((ofCarrier) => !ofCarrier.isSubsetOf(own))
      if (isForOthers) peers.wakeOthers()
    },
    watch: (eventIds) => watches.watch(eventIds, hasPeers),
    hasPeers,
    async close() {
      closing.abort()
      pollAll()
      await Promise.all(loops.map(({ done }) => done))
      peers.close()
      await lanes.close()
      log.debug({}, 'the relay is closed')
    },
  }
}

/** Lets requests wait for the first attempt at their rows, whichever instance makes it. */
function watchAttempts({ runtime, outbox, database, log }: RelayOptions) {
  const attempts = createWaiters<true>(runtime)
  const watched = new Set<string>()
  /** The row ids of watched events whose transaction has committed. Before that, a poll cannot find them. */
  const committed = new Map<string, bigint>()

  function poll(): void {
    const waiting = [...committed]
    if (waiting.length === 0) return
    outbox
      .unattempted(
        database,
        waiting.map(([, id]) => id),
      )
      .then(
        (unattempted) => {
          for (const [eventId, id] of waiting) {
            if (!unattempted.has(id)) attempts.resolve(eventId, true)
          }
        },
        (err) => log.debug({ err }, 'polling for the attempts of other instances failed'),
      )
  }

  function forget(eventIds: readonly string[]): void {
    for (const eventId of eventIds) {
      watched.delete(eventId)
      committed.delete(eventId)
    }
  }

  return {
    poll,
    onCommit(rows: readonly NewRow[]) {
      for (const { eventId, id } of rows) if (watched.has(eventId)) committed.set(eventId, id)
    },
    onAttempt: (eventId: string) => attempts.resolve(eventId, true),
    watch(eventIds: readonly string[], hasPeers: () => boolean): Watch {
      const waiters = eventIds.map((id) => attempts.wait(id))
      for (const eventId of eventIds) watched.add(eventId)
      return {
        cancel() {
          forget(eventIds)
          for (const waiter of waiters) waiter.cancel()
        },
        async attempted(limitMs) {
          // Another instance may have made the attempt and notified us before the rows were in `committed`.
          if (hasPeers()) poll()
          await Promise.all(waiters.map((waiter) => waiter.within(limitMs)))
          forget(eventIds)
        },
      }
    },
  }
}
