import { join } from 'node:path'
import { until } from '../../platform/async/until.ts'
import { root } from '../repository-files.ts'
import { lastLines, startKept } from '../servers/kept-process.ts'
import { type Restartable, restartable } from '../servers/restartable.ts'
import { SERVICES, type ServiceName } from './options.ts'

/** One process of a service. */
export interface Replica {
  readonly service: ServiceName
  /** The number of the replica among those of its service, from 1. */
  readonly number: number
  readonly port: number
  readonly url: string
  readonly logFile: string
  /** The process of the replica. `start` does not wait until the replica is ready; `replicasReady` does. */
  readonly server: Restartable
}

/** What a replica needs to know about the rest of the stack. */
export interface ReplicaContext {
  readonly brokers: string
  readonly databaseUrls: Readonly<Record<ServiceName, string>>
  /** The URL through which the services call each other. */
  readonly gatewayUrl: string
  readonly basePath: string
  readonly maildir: string
  readonly logs: string
  /** Additional environment variables for all services. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Returns additional environment variables for one replica. Called at each start of the replica. */
  readonly environmentOf?:
    | ((replica: Pick<Replica, 'service' | 'number'>) => ReplicaContext['environment'])
    | undefined
  readonly checkoutOf?: CheckoutOf | undefined
}

/**
 * Returns the folder of the checkout from which a replica runs. Called at each start of a replica, so that a
 * test can upgrade one replica after another.
 */
export type CheckoutOf = (replica: Pick<Replica, 'service' | 'number'>) => string

/** The first segment of each service's paths. */
export const PATHS = {
  order: 'orders',
  billing: 'billing',
  notification: 'notification',
} as const satisfies Record<ServiceName, string>

const READY_LIMIT_MS = 120_000
const PROBE_LIMIT_MS = 5_000
/** Longer than the time that a service itself allows for draining. */
const STOP_LIMIT_MS = 25_000

/** Starts all replicas at once. Each replica waits by itself for the servers that it needs. */
export async function startReplicas(
  ports: Readonly<Record<ServiceName, readonly number[]>>,
  contextOf: (service: ServiceName) => ReplicaContext,
): Promise<Replica[]> {
  const starting = SERVICES.flatMap((service) =>
    ports[service].map((port, index) =>
      startReplica({ service, number: index + 1, port }, contextOf(service)),
    ),
  )
  return await Promise.all(starting)
}

async function startReplica(
  replica: Pick<Replica, 'service' | 'number' | 'port'>,
  context: ReplicaContext,
): Promise<Replica> {
  const { service, number, port } = replica
  const logFile = join(context.logs, `${service}-${number}.log`)
  const begin = () =>
    startKept({
      command: process.execPath,
      args: [join(context.checkoutOf?.(replica) ?? root, 'services', service, 'main.ts')],
      // The logs folder has no .env file, which would add to the environment.
      folder: context.logs,
      env: { ...replicaEnvironment(replica, context), ...context.environmentOf?.(replica) },
      logFile,
    })
  const server = await restartable(begin, (kept) => kept.stop(STOP_LIMIT_MS))
  return { ...replica, url: `http://127.0.0.1:${port}`, logFile, server }
}

/**
 * The same options as in deploy/Dockerfile. By default, V8 lets each semi-space of the young generation grow
 * to 64 MB. With 4 MB, a service needs 160 MB less but settles fewer orders in `hybrid`
 * (docs/performance.md). The limit takes effect only when Node.js starts.
 */
export const NODE_OPTIONS = '--max-semi-space-size=16'

/** The environment of a replica: the given variables, overridden by the variables that the stack sets. */
export function replicaEnvironment(
  { service, number, port }: Pick<Replica, 'service' | 'number' | 'port'>,
  { brokers, databaseUrls, gatewayUrl, basePath, maildir, environment }: ReplicaContext,
): Record<string, string | undefined> {
  return {
    NODE_OPTIONS,
    ...environment,
    HOST: '127.0.0.1',
    PORT: String(port),
    BASE_PATH: basePath,
    DATABASE_URL: namedSessions(databaseUrls[service], sessionName(service, number)),
    KAFKA_BROKERS: brokers,
    ORDER_URL: gatewayUrl,
    BILLING_URL: gatewayUrl,
    NOTIFICATION_URL: gatewayUrl,
    MAILDIR: maildir,
  }
}

/** The application_name of a replica's sessions in pg_stat_activity. */
export const sessionName = (service: ServiceName, number: number) => `trifold-${service}-${number}`

function namedSessions(databaseUrl: string, name: string): string {
  const url = new URL(databaseUrl)
  url.searchParams.set('application_name', name)
  return url.href
}

/** Resolves when all replicas are ready. Rejects if one exits, or if one is not ready within two minutes. */
export async function replicasReady(
  replicas: readonly Replica[],
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<void> {
  const each = replicas.map(async ({ service, number, url, server, logFile }) => {
    const name = `${service} ${number}`
    try {
      const { ended } = server
      await until(() => isReady(url, service), { limitMs: READY_LIMIT_MS, ended, signal })
    } catch (cause) {
      const last = lastLines(logFile, 4)
      throw new Error(`${name} is not ready: ${(cause as Error).message}\n${last}`, { cause })
    }
    say(`${name}: ready at ${url}`)
  })
  await Promise.all(each)
}

/**
 * Probes the readiness of a service, directly or through the gateway. Rejects with the reason if the service
 * is not ready.
 */
export async function isReady(url: string, service: ServiceName): Promise<boolean> {
  const signal = AbortSignal.timeout(PROBE_LIMIT_MS)
  const response = await fetch(`${url}/${PATHS[service]}/actuator/health/readiness`, { signal })
  const body = await response.text()
  if (!response.ok) throw new Error(`the readiness probe got ${response.status} ${body}`)
  return true
}

/** Stops each service before the services that it calls: first order, then billing, then notification. */
export async function stopReplicas(replicas: readonly Replica[]): Promise<void> {
  for (const service of SERVICES) {
    await Promise.all(
      replicas.filter((one) => one.service === service).map((one) => one.server.stop()),
    )
  }
}
