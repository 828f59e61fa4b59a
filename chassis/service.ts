import { Fault } from '../contracts/problems.ts'
import type { TraceContext } from '../contracts/trace-context.ts'
import type { Bus } from '../messaging/bus.ts'
import type { ConsumerOptions } from '../messaging/consumer/consumer.ts'
import { countDeadLetters, expireDeadLetters } from '../messaging/dead-letters/dead-letters.ts'
import { createReplay, type ReplayOptions } from '../messaging/dead-letters/replay.ts'
import { deadLetterRoutes, readOnlyDeadLetterRoutes } from '../messaging/dead-letters/routes.ts'
import { outboxRoutes } from '../messaging/outbox/routes.ts'
import { type Caller, cached, coalesce } from '../platform/async/coalesce.ts'
import { periodically } from '../platform/async/periodically.ts'
import type { Log, Runtime } from '../platform/async/runtime.ts'
import {
  type Database,
  pingWrite,
  type Queryable,
  transact,
} from '../platform/database/database.ts'
import type { HttpClient } from '../platform/http/client.ts'
import {
  createHttpServer,
  type HttpServer,
  type HttpServerOptions,
} from '../platform/http/server.ts'
import type { Telemetry } from '../platform/telemetry/telemetry.ts'
import { inCommitSpans, noTracing, type Tracer } from '../platform/telemetry/tracing.ts'
import { measuredCalls, measuredDatabase } from './measured.ts'

/** The dependencies of a service, behind interfaces. */
export interface ServiceParts {
  readonly database: Database
  readonly bus: Bus
  readonly http: HttpClient
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry: Telemetry
  /** The tracer of the service; absent if tracing is off. */
  readonly tracer?: Tracer
  /** Whether no other process can use the database. */
  readonly soleProcess: boolean
  /**
   * The place where this process runs: host name, address and port. No other process can run there at the
   * same time. Absent if `soleProcess` is true.
   */
  readonly place?: string
  readonly server: Pick<
    HttpServerOptions,
    'basePath' | 'bodyLimitBytes' | 'rateLimitPerMinute' | 'trustedNetworks' | 'auth' | 'documented'
  >
}

/** Wraps the database and the HTTP client so that they report the duration of each operation. */
export function measured(parts: ServiceParts): ServiceParts {
  const { database, http, telemetry } = parts
  return {
    ...parts,
    database: measuredDatabase(database, telemetry),
    http: measuredCalls(http, telemetry),
  }
}

/**
 * A running service, which serves HTTP through `app`. `close` drains its requests, finishes and commits the
 * work that is in flight, and releases its resources.
 */
export interface Service {
  readonly app: HttpServer
  close(): Promise<void>
}

/** The options of a service's consumer, together with the parts of the service. */
export type Reader<Body> = ServiceParts & ConsumerOptions<Body>

/**
 * Readiness probes write to the database at most once in this many milliseconds, however often the service is
 * probed.
 */
const WRITE_PROBE_MS = 1_000
const RETENTION_MS = 3_600_000

/**
 * Creates the HTTP server of a service, with the routes for its dead letters and its outbox; the service adds
 * its own routes. The server reports ready while the database accepts writes and the broker responds.
 */
export async function createServiceServer<Body>(
  parts: ServiceParts & ReplayOptions<Body>,
  about: Pick<HttpServerOptions, 'service' | 'title'>,
): Promise<HttpServer> {
  const { database, schema, bus, server, log, telemetry, tracer, runtime } = parts
  telemetry.gauge('trifold_dead_letters', () => countDeadLetters(database, schema))
  const probe = cached(() => pingWrite(database, schema), WRITE_PROBE_MS, runtime.now)
  const readiness = { database: probe, broker: () => bus.ping() }
  const observed = { log, telemetry, tracer }
  const app = await createHttpServer({ ...server, ...about, ...observed, runtime, readiness })
  deadLetterRoutes(app, about.service, { database, schema, log, replay: createReplay(parts) })
  outboxRoutes(app, about.service, { database, schema })
  const retention = periodically(RETENTION_MS, runtime, log, async () => {
    const removed = await expireDeadLetters(database, schema)
    if (removed > 0) log.warn({ removed }, 'removed expired dead letters')
  })
  app.addHook('onClose', () => retention.close())
  return app
}

/**
 * Creates the HTTP server of a service that is switched off. It serves what operators can still read: health,
 * metrics, dead letters and the outbox. Pass the telemetry of the service's last run, so that its metrics are
 * kept.
 */
export async function createStoppedServer(
  parts: ServiceParts,
  schema: string,
  about: Pick<HttpServerOptions, 'service' | 'title'>,
): Promise<HttpServer> {
  const { database, server, log, telemetry, runtime } = parts
  const readiness = {
    database: () => pingWrite(database, schema),
    service: async () => {
      throw new Error('the service is switched off')
    },
  }
  const app = await createHttpServer({ ...server, ...about, log, telemetry, runtime, readiness })
  readOnlyDeadLetterRoutes(app, about.service, { database, schema })
  outboxRoutes(app, about.service, { database, schema })
  await app.ready()
  return app
}

/**
 * Options for batches of concurrent requests. `maxBatch` limits the requests that share a transaction;
 * `maxQueue`, those that wait. Transactions run one at a time: the requests that arrive during one form the
 * next batch. A second concurrent transaction would halve the batches.
 */
export const requestBatches = ({
  telemetry,
  runtime,
}: Pick<ServiceParts, 'telemetry' | 'runtime'>) => ({
  maxBatch: 500,
  maxQueue: 10_000,
  gather: runtime.turn,
  overflow() {
    telemetry.count('trifold_requests_refused_total')
    return new Fault('TOO_MANY_REQUESTS')
  },
})

export interface Batches<Item, Result> {
  readonly schema: string
  /** The trace context of an item. In that trace, the item gets a span for the transaction. */
  readonly traceOf: (item: Item) => TraceContext
  /** Returns one result for each item. It runs again if the transaction is retried. */
  readonly run: (tx: Queryable, items: readonly Item[]) => Promise<readonly Result[]>
  /** Gets the results and the committed transaction before the items' promises resolve. */
  readonly afterCommit: (results: readonly Result[], committed: Queryable) => void
  /** Gets results whose transaction was not committed. */
  readonly afterRollback?: (results: readonly Result[]) => void
}

/** Returns a function that batches concurrently submitted items into one transaction. */
export function inBatches<Item, Result>(
  parts: Pick<ServiceParts, 'database' | 'telemetry' | 'tracer' | 'runtime'>,
  { schema, traceOf, run, afterCommit, afterRollback }: Batches<Item, Result>,
): (item: Item, caller?: Caller) => Promise<Result> {
  const { database, telemetry, tracer = noTracing } = parts

  async function commit(items: readonly Item[]) {
    let results: readonly Result[] = []
    try {
      return await transact(database, async (tx) => {
        afterRollback?.(results)
        results = []
        results = await run(tx, items)
        return { results, tx }
      })
    } catch (error) {
      afterRollback?.(results)
      throw error
    }
  }

  return coalesce<Item, Result>({
    ...requestBatches(parts),
    run: async (items) => {
      const traces = items.map(traceOf)
      const { results, tx } = await inCommitSpans(tracer, schema, traces, () => commit(items))
      telemetry.observe('trifold_request_batch_size', items.length)
      afterCommit(results, tx)
      return results
    },
  })
}
