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
 * A consumer takes whatever is ready, settles it in one transaction and then commits the offsets,
 * while it takes what comes next. A crash before the commit of offsets delivers again, so handlers are
 * idempotent. In calm times one task holds all ready partitions; a batch that is retried keeps only
 * its own partitions busy.
 */
export interface Consumer {
  state(): ConsumerState
  /** Finishes and commits what is in flight, then leaves the group; bounded by `closeLimitMs`. */
  close(): Promise<void>
}

export interface ConsumerState {
  readonly running: boolean
  readonly brokerIsAway: boolean
  readonly databaseIsAway: boolean
}

export interface ConsumerOptions<Body> {
  readonly bus: Bus
  readonly database: Database
  /** Where the consumer's `dead_letter` table is. */
  readonly schema: string
  readonly group: string
  readonly topics: readonly string[]
  readonly decode: Decode<Body>
  readonly handle: Handle<Body>
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry?: Pick<Telemetry, 'count' | 'observe' | 'gauge'>
  readonly tracer?: Tracer
  /** Nobody waits for what comes of the messages: they may gather for a moment and go together. */
  readonly canWait?: true
  readonly backoff?: { readonly baseMs: number; readonly maxMs: number }
  readonly closeLimitMs?: number
}

const BACKOFF = { baseMs: 100, maxMs: 5_000 }
/** Short, since a broker that is back has much to catch up with, and one that is away refuses at once. */
const BROKER_MAX_WAIT_MS = 1_000
const CLOSE_LIMIT_MS = 10_000
/**
 * So long the next take waits for a transaction, because what queues meanwhile goes together in the
 * next one. After that, or when it is retried, the other partitions flow on beside it.
 */
const PATIENCE_MS = 250
/** Commits of offsets that may be under way while more is taken. */
const MAX_COMMITS = 64
/** So long messages for which nobody waits gather, unless so many come at a time anyway. */
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

  async function awaitBroker(error: unknown): Promise<void> {
    const failures = broker.failed(error)
    const maxMs = Math.min(backoff.maxMs, BROKER_MAX_WAIT_MS)
    await runtime.sleep(backoffMs(failures, backoff.baseMs, maxMs, runtime.random()), stop.signal)
  }

  /**
   * Settles batches together, or one by one where together they fail, and commits their offsets. The
   * next take is due as soon as they are settled, or wait for another try.
   */
  async function work(from: Subscription, batches: readonly Batch[], onDue: () => void) {
    const items = await settlement.read(batches, onDue)
    if (items === undefined) return from.release(batches)
    const outcome = await settlement.settle(items, onDue)
    if (outcome === 'divided') {
      onDue()
      await Promise.all(batches.map((batch) => work(from, [batch], onDue)))
    } else if (outcome === 'stopped') {
      from.release(batches)
    } else {
      const committed = commit(from, batches).finally(() => commits.delete(committed))
      commits.add(committed)
      onDue()
      await committed
    }
  }

  /** Until the group has moved or the consumer stops; then others may get them again, which is no harm. */
  async function commit(from: Subscription, batches: readonly Batch[]): Promise<void> {
    for (;;) {
      try {
        await from.commit(batches)
        broker.ended()
        return
      } catch (error) {
        await awaitBroker(error)
        if (stop.signal.aborted) return from.release(batches)
      }
    }
  }

  /** Starts a task; resolves when the next take is due. */
  async function begin(from: Subscription, batches: readonly Batch[]): Promise<void> {
    const waiting = new AbortController()
    const endWait = () => waiting.abort(WOKEN)
    const task = work(from, batches, endWait)
      .catch((error) => log.error({ err: error }, 'a task of the consumer failed'))
      .finally(() => {
        tasks.delete(task)
        endWait()
      })
    tasks.add(task)
    await runtime.sleep(PATIENCE_MS, waiting.signal)
  }

  /** Few messages cost as much as many. */
  async function gather(last: readonly Batch[]): Promise<void> {
    const messages = last.reduce((sum, batch) => sum + batch.messages.length, 0)
    if (messages < ENOUGH_MESSAGES) await runtime.sleep(GATHER_MS, stop.signal)
  }

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      try {
        if (broker.isOngoing()) await bus.ping()
        subscription ??= await bus.subscribe(options.group, options.topics)
        broker.ended()
        if (commits.size >= MAX_COMMITS) await Promise.race(commits)
        if (stop.signal.aborted) break
        const batches = await subscription.take()
        if (stop.signal.aborted) subscription.release(batches)
        else if (batches.length === 0) break
        else {
          await begin(subscription, batches)
          if (options.canWait) await gather(batches)
        }
      } catch (error) {
        await awaitBroker(error)
      }
    }
    running = false
    // Offsets of what is settled can be committed by a member only.
    await Promise.all(tasks)
    await subscription?.close()
  }

  const loop = run().catch((error) => log.warn({ err: error }, 'leaving the group failed'))

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
      brokerIsAway: broker.isOngoing(),
      databaseIsAway: settlement.databaseIsAway(),
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

/**
 * A partition whose lag is not known here has none: what nobody reads must not look like zero.
 * Counters begin at zero, since a rate takes no notice of one whose first value is the first event.
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
