import type { IncomingMessage, ServerResponse } from 'node:http'
import { hostname } from 'node:os'
import Type, { type Static, type TObject } from 'typebox'
import type { ServiceName } from '../contracts/access.ts'
import { createKafkaBus } from '../messaging/kafka/bus.ts'
import { kafkaSecurity, kafkaSecurityConfig } from '../messaging/kafka/security.ts'
import { backoffMs, type Log, systemRuntime } from '../platform/async/runtime.ts'
import { type Auth, openAuth } from '../platform/auth/auth.ts'
import { authConfig } from '../platform/auth/config.ts'
import { tokenInFile, withServiceToken } from '../platform/auth/service-tokens.ts'
import { DatabaseError } from '../platform/database/database.ts'
import {
  type FrontDoor,
  type MountedServices,
  openFrontDoor,
} from '../platform/front-door/front-door.ts'
import {
  allows,
  READ_ONLY,
  sendAsyncApi,
  sendJson,
  sendProblem,
} from '../platform/front-door/plain-responses.ts'
import { createHttpClient, tracedCalls } from '../platform/http/client.ts'
import { pathOf } from '../platform/http/request-target.ts'
import { openPostgres } from '../platform/postgres/postgres.ts'
import {
  allowedHostsOf,
  ConfigError,
  httpConfig,
  prefixOf,
  readConfig,
} from '../platform/process/config.ts'
import { brokerList, itemsOf, networksOf, postgresUrl } from '../platform/process/config-formats.ts'
import { runProcess } from '../platform/process/process.ts'
import { createLog, createTelemetry } from '../platform/telemetry/telemetry.ts'
import { openTracer, tracingConfig } from '../platform/telemetry/tracing-start.ts'
import { measured, type Service, type ServiceParts } from './service.ts'

/** The servers of a service that runs as its own process. */
export const serversConfig = {
  DATABASE_URL: postgresUrl({
    secret: true,
    description:
      'The PostgreSQL database of this service, such as postgres://user:password@host/name.',
  }),
  DATABASE_CONNECTIONS: Type.Integer({
    default: 10,
    minimum: 2,
    maximum: 200,
    description: 'The maximum number of connections to the database.',
  }),
  KAFKA_BROKERS: brokerList({
    default: '127.0.0.1:9092',
    description:
      'One or more Kafka brokers as host:port, separated by commas; the other brokers are found through them.',
  }),
  ...kafkaSecurityConfig,
} as const

/** The configuration of a service that runs as its own process, on Kafka and PostgreSQL. */
export const processConfig = {
  ...httpConfig,
  ...serversConfig,
  ...tracingConfig,
  ...authConfig,
} as const

const processSchema = Type.Object(processConfig)
type ProcessConfig = Static<typeof processSchema> & {
  /** Absent for a service that calls no other service. */
  readonly SERVICE_TOKEN_FILE?: string
}

export interface ServiceProcess<Schema extends TObject> {
  readonly name: ServiceName
  /** The first segment of the service's paths. */
  readonly path: 'orders' | 'billing' | 'notification'
  readonly schema: Schema
  readonly create: (parts: ServiceParts, config: Static<Schema>) => Promise<Service>
}

/**
 * Runs a service as its own process. The process listens at once, alive but not ready, and waits for its
 * database without a time limit, so that services and database servers can start in any order.
 */
export function runService<Schema extends TObject>(service: ServiceProcess<Schema>): Promise<void> {
  const { name, path, schema } = service
  return runProcess(`trifold-${name}`, async (environment) => {
    const config = readConfig(schema, environment) as Static<Schema> & ProcessConfig
    const log = createLog(config.LOG_LEVEL, name)
    if (config.AUTH === 'jwt' && config.SERVICE_TOKEN_FILE === '') {
      throw new ConfigError([
        'AUTH=jwt needs SERVICE_TOKEN_FILE, the token for calls to other services',
      ])
    }
    const auth = await openAuth(config, { runtime: systemRuntime, log })
    const door = await openDoor(config, name, path)
    const parts = await openParts(config, auth, name, log, placeOf(door))
    const closing = new AbortController()
    const starting = startWhenPossible(
      () => service.create(parts.forService, config),
      closing.signal,
      log,
    ).then((running) => {
      if (running) door.mount(name, running.app)
      if (running) log.info({ url: door.url }, `${name} is serving requests`)
      return running
    })
    return {
      async close() {
        closing.abort()
        door.drain()
        await door.unmount(name)
        const running = await starting.catch(() => undefined)
        await running?.close()
        await door.close()
        await parts.close()
        await auth?.close()
      },
    }
  })
}

function openDoor(config: ProcessConfig, name: string, path: string): Promise<FrontDoor> {
  const basePath = prefixOf(config.BASE_PATH)
  const handle = (
    services: MountedServices,
    request: IncomingMessage,
    response: ServerResponse,
  ) => {
    const requestPath = pathOf(request.url ?? '/', basePath)
    // The AsyncAPI document belongs to no single service. Every service serves it, so a gateway can send
    // requests for it to any of them.
    if (sendAsyncApi(request, response, requestPath, basePath)) return
    if (services.has(name)) return services.pass(name, request, response)
    const detail = `${name} is waiting for its database`
    if (!requestPath.startsWith(`/${path}/actuator/health`)) {
      return sendProblem(request, response, 'SERVICE_UNAVAILABLE', { detail })
    }
    if (!allows(request, response, READ_ONLY)) return
    if (requestPath === `/${path}/actuator/health/liveness`) {
      return sendJson(request, response, 200, { status: 'UP' })
    }
    const components = { start: { status: 'DOWN' } }
    sendJson(request, response, 503, { status: 'DOWN', components })
  }
  return openFrontDoor({
    host: config.HOST,
    port: config.PORT,
    requestTimeoutMs: config.REQUEST_TIMEOUT_MS,
    maxConnections: config.MAX_CONNECTIONS,
    allowedHosts: allowedHostsOf(config),
    handle,
  })
}

/**
 * Names the place where this process runs: host name, address and port. Only one process at a time can listen
 * there, so any earlier process with the same place is gone. A restarted container keeps its host name.
 */
function placeOf({ url }: FrontDoor): string {
  return `${hostname()}-${new URL(url).host}`.replace(/[^\w.-]/g, '-')
}

async function openParts(
  config: ProcessConfig,
  auth: Auth | undefined,
  name: string,
  log: Log,
  place: string,
) {
  const security = kafkaSecurity(config, config.KAFKA_BROKERS)
  const telemetry = createTelemetry(name)
  const tracer = await openTracer({ service: name, messagingSystem: 'kafka', log }, config)
  const database = await openPostgres({
    url: config.DATABASE_URL,
    telemetry,
    maxConnections: config.DATABASE_CONNECTIONS,
    onPoolError: (err) => log.warn({ err }, 'lost a connection to the database'),
  })
  const bus = await createKafkaBus({
    brokers: itemsOf(config.KAFKA_BROKERS),
    security,
    clientId: `trifold-${name}`,
    place,
    runtime: systemRuntime,
    log,
  })
  const http = createHttpClient()
  const tokenFile = config.SERVICE_TOKEN_FILE ?? ''
  const call =
    auth && tokenFile !== '' ? withServiceToken(http.call, tokenInFile(tokenFile), log) : http.call
  const forService = measured({
    database,
    bus,
    http: tracedCalls(call, tracer),
    runtime: systemRuntime,
    log,
    telemetry,
    tracer,
    soleProcess: false,
    place,
    server: {
      basePath: config.BASE_PATH,
      bodyLimitBytes: config.BODY_LIMIT_BYTES,
      rateLimitPerMinute: config.RATE_LIMIT_PER_MINUTE,
      trustedNetworks: networksOf(config.TRUSTED_PROXIES),
      auth,
    },
  })
  return {
    forService,
    async close() {
      await http.close()
      await bus.close()
      await database.close()
      await tracer.close()
    },
  }
}

const WAIT_BASE_MS = 200
const WAIT_MAX_MS = 5_000

/** Creates the service as soon as its database is up. Returns undefined if the process stops before then. */
async function startWhenPossible(
  create: () => Promise<Service>,
  stopped: AbortSignal,
  log: Log,
): Promise<Service | undefined> {
  for (let attempt = 0; !stopped.aborted; attempt += 1) {
    try {
      return await create()
    } catch (err) {
      if (!(err instanceof DatabaseError) || err.kind === 'invalid') throw err
      if (attempt === 0) log.warn({ err }, 'waiting for the database')
      const waitMs = backoffMs(attempt, WAIT_BASE_MS, WAIT_MAX_MS, systemRuntime.random())
      await systemRuntime.sleep(waitMs, stopped)
    }
  }
  return undefined
}
