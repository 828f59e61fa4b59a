import { join } from 'node:path'
import { until } from '../../platform/async/until.ts'
import { root } from '../repository-files.ts'
import { lastLines, startKept } from '../servers/kept-process.ts'
import { type Restartable, restartable } from '../servers/restartable.ts'
import { SERVICES, type ServiceName } from './options.ts'

/** One process of a service. */
export interface Replica {
  readonly service: ServiceName
  /** Counts from 1 in its service. */
  readonly number: number
  readonly port: number
  readonly url: string
  readonly logFile: string
  /** It does not wait until it is ready: see `replicasReady`. */
  readonly server: Restartable
}

export interface Surroundings {
  readonly brokers: string
  readonly databaseUrls: Readonly<Record<ServiceName, string>>
  /** Where the services reach each other. */
  readonly gatewayUrl: string
  readonly basePath: string
  readonly maildir: string
  readonly logs: string
  /** What else the services are to read. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** What one replica reads besides, asked for at each of its starts. */
  readonly environmentOf?:
    | ((replica: Pick<Replica, 'service' | 'number'>) => Surroundings['environment'])
    | undefined
  readonly checkoutOf?: CheckoutOf | undefined
}

/**
 * The checkout whose code a replica runs. Asked each time the replica starts, so that a test can upgrade
 * one replica after another.
 */
export type CheckoutOf = (replica: Pick<Replica, 'service' | 'number'>) => string

/** The first part of a service's paths. */
export const PATHS = {
  order: 'orders',
  billing: 'billing',
  notification: 'notification',
} as const satisfies Record<ServiceName, string>

const READY_LIMIT_MS = 120_000
const ANSWER_LIMIT_MS = 5_000
/** A service has a limit of its own, which is shorter. */
const STOP_LIMIT_MS = 25_000

/** Starts all replicas; they wait by themselves for what they need. */
export async function startReplicas(
  ports: Readonly<Record<ServiceName, readonly number[]>>,
  around: (service: ServiceName) => Surroundings,
): Promise<Replica[]> {
  const starting = SERVICES.flatMap((service) =>
    ports[service].map((port, index) =>
      startReplica({ service, number: index + 1, port }, around(service)),
    ),
  )
  return await Promise.all(starting)
}

async function startReplica(
  replica: Pick<Replica, 'service' | 'number' | 'port'>,
  around: Surroundings,
): Promise<Replica> {
  const { service, number, port } = replica
  const logFile = join(around.logs, `${service}-${number}.log`)
  const begin = () =>
    startKept({
      command: process.execPath,
      args: [join(around.checkoutOf?.(replica) ?? root, 'services', service, 'main.ts')],
      // Not where a .env file may be: their environment is complete.
      folder: around.logs,
      env: { ...replicaEnvironment(replica, around), ...around.environmentOf?.(replica) },
      logFile,
    })
  const server = await restartable(begin, (kept) => kept.stop(STOP_LIMIT_MS))
  return { ...replica, url: `http://127.0.0.1:${port}`, logFile, server }
}

/** What a replica is told, over what the environment says. */
export function replicaEnvironment(
  { service, number, port }: Pick<Replica, 'service' | 'number' | 'port'>,
  { brokers, databaseUrls, gatewayUrl, basePath, maildir, environment }: Surroundings,
): Record<string, string | undefined> {
  return {
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

/** Resolves when each replica can do its work. Rejects when one ends, or past the limit. */
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

/** Asks a replica, or the gateway. Throws what keeps it from being ready. */
export async function isReady(url: string, service: ServiceName): Promise<boolean> {
  const signal = AbortSignal.timeout(ANSWER_LIMIT_MS)
  const answer = await fetch(`${url}/${PATHS[service]}/actuator/health/readiness`, { signal })
  const said = await answer.text()
  if (!answer.ok) throw new Error(`its readiness is ${answer.status} ${said}`)
  return true
}

/** Callers first: order calls billing, billing calls notification. */
export async function stopReplicas(replicas: readonly Replica[]): Promise<void> {
  for (const service of SERVICES) {
    await Promise.all(
      replicas.filter((one) => one.service === service).map((one) => one.server.stop()),
    )
  }
}
