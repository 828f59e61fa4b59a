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

/** What every service is made of; which implementations, it cannot tell. */
export interface ServiceParts {
  readonly database: Database
  readonly bus: Bus
  readonly http: HttpClient
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry: Telemetry
  /** Absent where nothing is traced. */
  readonly tracer?: Tracer
  /** True where no other process can have the database. */
  readonly soleProcess: boolean
  /** Where this process runs: no other process is there as long as it lives. Absent where `soleProcess`. */
  readonly place?: string
  readonly server: Pick<
    HttpServerOptions,
    'basePath' | 'bodyLimitBytes' | 'rateLimitPerMinute' | 'trustedNetworks' | 'documented'
  >
}

/** The parts, with what database and other services take reported. */
export function measured(parts: ServiceParts): ServiceParts {
  const { database, http, telemetry } = parts
  return {
    ...parts,
    database: measuredDatabase(database, telemetry),
    http: measuredCalls(http, telemetry),
  }
}

/** A running service. It answers through `app`; closing drains, finishes, commits and lets go. */
export interface Service {
  readonly app: HttpServer
  close(): Promise<void>
}

/** What a service reads its topics with. */
export type Reader<Body> = ServiceParts & ConsumerOptions<Body>

/** However often a service is probed, it writes no more often. */
const WRITE_PROBE_MS = 1_000
const RETENTION_MS = 3_600_000

/**
 * The HTTP side of a service, ready for its own routes, with those of its dead letters; it is ready
 * when database and broker are.
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
    if (removed > 0) log.warn({ removed }, 'dead letters that nobody took care of were removed')
  })
  app.addHook('onClose', () => retention.close())
  return app
}

/**
 * What operators can read of a service that is switched off: health, metrics, dead letters and outbox.
 * `telemetry` is that of its last run.
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
 * Batches of concurrent requests: at most so many share a transaction, at most so many wait. One
 * transaction at a time: what comes while it runs is one batch, and a second lane would halve it.
 */
export const requestBatches = ({
  telemetry,
  runtime,
}: Pick<ServiceParts, 'telemetry' | 'runtime'>) => ({
  maxBatch: 500,
  maxQueue: 10_000,
  concurrency: 1,
  gather: runtime.turn,
  overflow() {
    telemetry.count('trifold_requests_refused_total')
    return new Fault('TOO_MANY_REQUESTS')
  },
})

/**
 * Lets concurrent requests share a transaction; `afterCommit` runs before they are answered, with
 * the transaction that was committed. Each item has a span of it in its own trace.
 */
export function inBatches<Item, Result>(
  parts: Pick<ServiceParts, 'database' | 'telemetry' | 'tracer' | 'runtime'>,
  spans: { readonly schema: string; readonly traceOf: (item: Item) => TraceContext },
  run: (tx: Queryable, items: readonly Item[]) => Promise<readonly Result[]>,
  afterCommit: (results: readonly Result[], committed: Queryable) => void,
): (item: Item, caller?: Caller) => Promise<Result> {
  const { database, telemetry, tracer = noTracing } = parts
  const commit = (items: readonly Item[]) =>
    transact(database, async (tx) => ({ results: await run(tx, items), tx }))
  return coalesce<Item, Result>({
    ...requestBatches(parts),
    run: async (items) => {
      const traces = items.map(spans.traceOf)
      const { results, tx } = await inCommitSpans(tracer, spans.schema, traces, () => commit(items))
      telemetry.observe('trifold_request_batch_size', items.length)
      afterCommit(results, tx)
      return results
    },
  })
}
