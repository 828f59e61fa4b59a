import type { Database } from '../platform/database.ts'
import type { HttpClient } from '../platform/http-client.ts'
import type { HttpServer, HttpServerOptions } from '../platform/http-server.ts'
import type { Log, Runtime } from '../platform/runtime.ts'
import type { Telemetry } from '../platform/telemetry.ts'
import type { Bus } from './bus.ts'

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
