import { shared } from '../../platform/async/coalesce.ts'
import { createOutage } from '../../platform/async/outage.ts'
import { backoffMs, type Log, type Runtime, WOKEN } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import type { Tracer } from '../../platform/telemetry/tracing.ts'
import type { Batch, Bus, Subscription } from '../bus.ts'
import { createSettlement, type Decode, type Handle } from './settlement.ts'

export type { Handle, Handled } from './settlement.ts'

/**
 * A consumer takes all messages that are ready, settles them in one transaction, and then commits their
 * offsets while it takes the next messages. A crash before the offset commit causes a redelivery, so handlers
 * must be idempotent. Usually one task at a time handles the batches of all partitions. A batch that is
 * retried holds up only its own partitions, and other tasks handle the others.
 */
export interface Consumer {
  state(): ConsumerState
  /** Finishes and commits the batches in flight, then leaves the group; takes at most `closeLimitMs`. */
  close(): Promise<void>
}

export interface ConsumerState {
  readonly running: boolean
  readonly isBrokerDown: boolean
  readonly isDatabaseDown: boolean
}

export interface ConsumerOptions<Body> {
  readonly bus: Bus
  readonly database: Database
  /** The database schema with the consumer's `dead_letter` table. */
  readonly schema: string
  readonly group: string
  readonly topics: readonly string[]
  readonly decode: Decode<Body>
  readonly handle: Handle<Body>
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry?: Pick<Telemetry, 'count' | 'observe' | 'gauge'>
  readonly tracer?: Tracer
  /** No request waits for the effect of these messages, so the consumer can gather them for a moment. */
  readonly canWait?: true
  readonly backoff?: { readonly baseMs: number; readonly maxMs: number }
  readonly closeLimitMs?: number
}

const BACKOFF = { baseMs: 100, maxMs: 5_000 }
/**
 * Short, because a backlog has built up when the broker is back, and attempts cost little: a broker that is
 * down refuses connections at once.
 */
const BROKER_MAX_WAIT_MS = 1_000
const CLOSE_LIMIT_MS = 10_000
/**
 * How long the next take waits for the running transaction. Messages that queue during that time share the next
 * transaction. If the transaction takes longer or is retried, other partitions proceed without it.
 */
const TAKE_DELAY_MS = 250
/** While this many offset commits are in flight, no further messages are taken. */
const MAX_COMMITS_IN_FLIGHT = 64
/**
 * After a batch smaller than `ENOUGH_MESSAGES`, messages that no request waits for are gathered for this
 * long.
 */
const GATHER_MS = 50
const ENOUGH_MESSAGES = 100

export function startConsumer<Body>(options: ConsumerOptions<Body>): Consumer {
  const { bus, runtime, log, backoff = BACKOFF } = options
  const stop = new AbortController()
  const broker = createOutage(log, 'the broker')
  const settlement = createSettlement({ ...options, backoff, stopped: stop.signal })
  const tasks = new Set<Promise<void>>()
  const commits = new Set<Promise<void>>()
  let running = true
  let subscription: Subscription | undefined

  async function backOff(error: unknown): Promise<void> {
    const failures = broker.failed(error)
    const maxMs = Math.min(backoff.maxMs, BROKER_MAX_WAIT_MS)
    await runtime.sleep(backoffMs(failures, backoff.baseMs, maxMs, runtime.random()), stop.signal)
  }

  /**
   * Settles batches in one transaction, or one by one if that fails, and commits their offsets. Calls `onDue`
   * when the next take is due: as soon as the batches are settled, or are waiting for a retry.
   */
  async function settleAndCommit(from: Subscription, batches: readonly Batch[], onDue: () => void) {
    const items = await settlement.read(batches, onDue)
    if (items === undefined) return from.release(batches)
    const outcome = await settlement.settle(items, onDue)
    if (outcome === 'divided') {
      onDue()
      await Promise.all(batches.map((batch) => settleAndCommit(from, [batch], onDue)))
    } else if (outcome === 'stopped') {
      from.release(batches)
    } else {
      const committed = commit(from, batches).finally(() => commits.delete(committed))
      commits.add(committed)
      onDue()
      await committed
    }
  }

  /**
   * Retries the offset commit until it succeeds or the consumer stops. In the latter case the batches may be
   * redelivered, and the handlers deduplicate them.
   */
  async function commit(from: Subscription, batches: readonly Batch[]): Promise<void> {
    for (;;) {
      try {
        await from.commit(batches)
        broker.ended()
        return
      } catch (error) {
        await backOff(error)
        if (stop.signal.aborted) return from.release(batches)
      }
    }
  }

  /** Starts a task; resolves when the next take is due. */
  async function startTask(from: Subscription, batches: readonly Batch[]): Promise<void> {
    const waiting = new AbortController()
    const endWait = () => waiting.abort(WOKEN)
    const task = settleAndCommit(from, batches, endWait)
      .catch((error) => log.error({ err: error }, 'a consumer task failed'))
      .finally(() => {
        tasks.delete(task)
        endWait()
      })
    tasks.add(task)
    await runtime.sleep(TAKE_DELAY_MS, waiting.signal)
  }

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      try {
        if (broker.isOngoing()) await bus.ping()
        subscription ??= await bus.subscribe(options.group, options.topics)
        broker.ended()
        if (commits.size >= MAX_COMMITS_IN_FLIGHT) await Promise.race(commits)
        if (stop.signal.aborted) break
        const batches = await subscription.take()
        if (stop.signal.aborted) subscription.release(batches)
        else if (batches.length === 0) break
        else {
          await startTask(subscription, batches)
          if (options.canWait && isSmall(batches)) await runtime.sleep(GATHER_MS, stop.signal)
        }
      } catch (error) {
        await backOff(error)
      }
    }
    running = false
    // The tasks must end before the subscription closes, because only a member of the group can commit their
    // offsets.
    await Promise.all(tasks)
    await subscription?.close()
  }

  const loop = run().catch((error) => log.warn({ err: error }, 'leaving the consumer group failed'))

  async function leave(): Promise<void> {
    await Promise.all(tasks)
    await subscription?.close().catch(() => undefined)
    await loop
  }

  if (options.telemetry) observeProgress(options, options.telemetry, () => subscription)
  let closed: Promise<void> | undefined
  return {
    state: () => ({
      running,
      isBrokerDown: broker.isOngoing(),
      isDatabaseDown: settlement.isDatabaseDown(),
    }),
    close() {
      stop.abort()
      const left = new AbortController()
      const limit = runtime.sleep(options.closeLimitMs ?? CLOSE_LIMIT_MS, left.signal)
      closed ??= Promise.race([leave(), limit]).finally(() => left.abort())
      return closed
    },
  }
}

/** A transaction of few messages costs as much as one of many. */
const isSmall = (batches: readonly Batch[]) =>
  batches.reduce((sum, batch) => sum + batch.messages.length, 0) < ENOUGH_MESSAGES

/**
 * Registers the consumer's metrics. A partition whose lag this member does not know gets no value at all, because
 * a partition that no member reads must not look as if its lag were zero. Counters are created with the value
 * zero: Prometheus' rate() misses the first event if a counter first appears with the value 1.
 */
function observeProgress(
  { group, topics }: Pick<ConsumerOptions<unknown>, 'group' | 'topics'>,
  telemetry: Pick<Telemetry, 'count' | 'gauge'>,
  subscription: () => Subscription | undefined,
): void {
  for (const topic of topics) {
    telemetry.count('trifold_consumer_messages_total', { topic }, 0)
    telemetry.count('trifold_consumer_retries_total', { topic }, 0)
    telemetry.count('trifold_consumer_unknown_events_total', { topic }, 0)
    telemetry.count('trifold_consumer_unknown_fields_total', { topic }, 0)
  }
  telemetry.count('trifold_dead_letters_total', { source: 'broker' }, 0)
  const read = shared(async () => (await subscription()?.lag()) ?? [])
  telemetry.gauge('trifold_consumer_lag_messages', async () => {
    const lags = await read()
    return lags.flatMap(({ topic, partition, messages }) =>
      messages === undefined
        ? []
        : [{ labels: { group, topic, partition: String(partition) }, value: messages }],
    )
  })
  telemetry.gauge('trifold_consumer_topic_partitions', async () => {
    const counts = Map.groupBy(await read(), ({ topic }) => topic)
    return [...counts].map(([topic, { length }]) => ({ labels: { group, topic }, value: length }))
  })
}
