import { Fault } from '../contracts/problems.ts'
import { coalesce } from '../platform/coalesce.ts'
import { type Database, ping, type Queryable, transact } from '../platform/database.ts'
import type { HttpClient } from '../platform/http-client.ts'
import {
  createHttpServer,
  type HttpServer,
  type HttpServerOptions,
} from '../platform/http-server.ts'
import type { Log, Runtime } from '../platform/runtime.ts'
import type { Telemetry } from '../platform/telemetry.ts'
import type { Bus } from './bus.ts'
import type { ConsumerOptions } from './consumer.ts'
import { deadLetterRoutes } from './dead-letter-routes.ts'
import { countDeadLetters } from './dead-letters.ts'
import { createReplay, type ReplayOptions } from './replay.ts'

/** What every service is made of; which implementations, it cannot tell. */
export interface ServiceParts {
  readonly database: Database
  readonly bus: Bus
  readonly http: HttpClient
  readonly runtime: Runtime
  readonly log: Log
  readonly telemetry: Telemetry
  /** True where no other process can have the database. */
  readonly soleProcess: boolean
  readonly server: Pick<
    HttpServerOptions,
    'basePath' | 'bodyLimitBytes' | 'requestTimeoutMs' | 'rateLimitPerMinute'
  >
}

/** A running service. It answers through `app`; closing drains, finishes, commits and lets go. */
export interface Service {
  readonly app: HttpServer
  close(): Promise<void>
}

/** What a service reads its topics with. */
export type Reader<Body> = ServiceParts & ConsumerOptions<Body>

/**
 * The HTTP side of a service, ready for its own routes, with those of its dead letters; it is ready
 * when database and broker are.
 */
export async function createServiceServer<Body>(
  parts: ServiceParts & ReplayOptions<Body>,
  about: Pick<HttpServerOptions, 'service' | 'title'>,
): Promise<HttpServer> {
  const { database, schema, bus, server, log, telemetry, runtime } = parts
  telemetry.gauge('trifold_dead_letters', () => countDeadLetters(database, schema))
  const readiness = { database: () => ping(database), broker: () => bus.ping() }
  const app = await createHttpServer({ ...server, ...about, log, telemetry, runtime, readiness })
  deadLetterRoutes(app, about.service, { database, schema, log, replay: createReplay(parts) })
  return app
}

/** Batches of concurrent requests: at most so many share a transaction, at most so many wait. */
export const requestBatches = {
  maxBatch: 500,
  maxQueue: 10_000,
  lanes: 2,
  overflow: () => new Fault('TOO_MANY_REQUESTS'),
}

/**
 * Lets concurrent requests share a transaction; `afterCommit` runs before they are answered, with
 * the transaction that was committed.
 */
export function inBatches<Item, Result>(
  database: Database,
  run: (tx: Queryable, items: readonly Item[]) => Promise<readonly Result[]>,
  afterCommit: (results: readonly Result[], committed: Queryable) => void,
): (item: Item) => Promise<Result> {
  return coalesce<Item, Result>({
    ...requestBatches,
    run: async (items) => {
      const { results, tx } = await transact(database, async (tx) => ({
        results: await run(tx, items),
        tx,
      }))
      afterCommit(results, tx)
      return results
    },
  })
}
