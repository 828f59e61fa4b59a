import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { createTopics } from '../../apps/topics/main.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { until } from '../../platform/async/until.ts'
import { lockFolder } from '../../platform/pglite/folder-lock.ts'
import { runProcess } from '../../platform/process/process.ts'
import { root } from '../repository-files.ts'
import { type Docker, findDocker } from '../servers/docker.ts'
import { type KafkaListener, startKafka } from '../servers/kafka.ts'
import { startNginx } from '../servers/nginx.ts'
import { freePorts, isFree } from '../servers/ports.ts'
import { databaseUrl, makeDatabases, startPostgres } from '../servers/postgres.ts'
import type { Restartable } from '../servers/restartable.ts'
import { SERVICES, type ServiceName, type StackOptions, stackOptions, USAGE } from './options.ts'
import {
  type CheckoutOf,
  isReady,
  type Replica,
  type ReplicaContext,
  replicasReady,
  startReplicas,
  stopReplicas,
} from './services.ts'

/** Kafka, PostgreSQL, nginx, and the services, each as a separate process. */
export interface Stack {
  /** The URL of nginx. */
  readonly url: string
  readonly brokers: string
  readonly databaseUrls: Readonly<Record<ServiceName, string>>
  readonly replicas: readonly Replica[]
  readonly nginxPid: number
  /** The Kafka of the stack; undefined if KAFKA_BROKERS names other brokers. */
  readonly kafka: Restartable | undefined
  /** The PostgreSQL of the stack; undefined if DATABASE_URL names another server. */
  readonly postgres: Restartable | undefined
  /** The folder with the stack's data and logs. */
  readonly folder: string
  close(): Promise<void>
}

export interface StackStart extends StackOptions {
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Returns additional environment variables for one replica. Called at each start of the replica. */
  readonly environmentOf?: ReplicaContext['environmentOf']
  readonly checkoutOf?: CheckoutOf
  /** Aborts the start of the stack. */
  readonly signal: AbortSignal
  readonly say: (line: string) => void
  /**
   * Added to the usual ports of everything except nginx; 0 by default. Give stacks that run at the same time
   * different offsets: in the same range, one stack could take a port that the other has released only for a
   * moment.
   */
  readonly portOffset?: number
  /**
   * Lets the caller put a proxy between a service and a server that the service depends on. Receives the
   * loopback port of the server, and resolves with the port that the service should use instead. If this is
   * given, nothing runs in containers, and servers named by environment variables get no proxy.
   */
  readonly proxyFor?: (from: ServiceName, to: Dependency, port: number) => Promise<number>
}

export type Dependency = 'kafka' | 'postgres' | 'gateway'

const DATABASES = { order: 'orders', billing: 'billing', notification: 'notification' } as const
const KAFKA_PORT = 9092
const POSTGRES_PORT = 5440
/** The port of the first replica of each service. Further replicas use the ports after it. */
const SERVICE_PORTS = { order: 8011, billing: 8021, notification: 8031 } as const
/** Connections for each service process. Its pool has 10 by default, and it opens others outside the pool. */
const CONNECTIONS_PER_PROCESS = 12
/** Connections for operators and tools. */
const EXTRA_CONNECTIONS = 40
const GATEWAY_LIMIT_MS = 30_000
/** The three services stop one after the other, each within its own limit, and then the servers stop. */
const CLOSE_LIMIT_MS = 120_000

/**
 * Starts the whole stack and resolves when it is ready. If a part does not start, the parts started before it
 * are stopped.
 */
export async function startStack(start: StackStart): Promise<Stack> {
  const folder = resolve(start.folder ?? join(root, 'data', 'stack'))
  const closers: (() => Promise<unknown> | undefined)[] = []
  let closing: Promise<void> | undefined
  const close = () => {
    closing ??= closeAll(closers)
    return closing
  }
  try {
    return { ...(await startParts(start, folder, closers)), folder, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Closes the parts in the reverse order of their start. */
async function closeAll(closers: (() => Promise<unknown> | undefined)[]): Promise<void> {
  for (const closer of closers.reverse()) await closer()
}

async function startParts(
  start: StackStart,
  folder: string,
  closers: (() => Promise<unknown> | undefined)[],
): Promise<Omit<Stack, 'folder' | 'close'>> {
  const { port, replicas: counts, environment, environmentOf, checkoutOf, signal, say } = start
  const logs = join(folder, 'logs')
  mkdirSync(folder, { recursive: true })
  const lock = lockFolder(folder)
  closers.push(async () => lock.release())
  rotateLogs(logs)
  for (const part of ['logs', 'mail', 'nginx']) mkdirSync(join(folder, part), { recursive: true })
  if (!(await isFree(port))) throw new Error(`port ${port} is in use; choose another with --port`)
  const ports = await servicePorts(counts, start.portOffset ?? 0)
  const basePath = environment.BASE_PATH || '/otusapp/gur-ok'

  const addresses = (service: ServiceName) => ports[service].map((one) => `127.0.0.1:${one}`)
  const gateway = await startNginx(join(folder, 'nginx'), {
    port,
    basePath,
    upstreams: {
      orders: addresses('order'),
      billing: addresses('billing'),
      notification: addresses('notification'),
    },
  })
  closers.push(gateway.close)
  say(`nginx: ready at ${gateway.url}`)
  signal.throwIfAborted()

  const processes = Object.values(counts).reduce((sum, count) => sum + count)
  const servers = await startServers({ ...start, folder, logs, processes }, closers)
  signal.throwIfAborted()

  const maildir = resolve(environment.MAILDIR || join(folder, 'mail'))
  const addressesOf = await addressesFor(start.proxyFor, servers, gateway.url)
  const shared = { basePath, maildir, logs, environment, environmentOf, checkoutOf }
  const replicas = await startReplicas(ports, (service) => ({
    ...addressesOf[service],
    ...shared,
  }))
  closers.push(() => stopReplicas(replicas))
  say('services: starting')
  await replicasReady(replicas, signal, say)
  for (const service of SERVICES.filter((name) => counts[name] > 0)) {
    const probe = () => isReady(gateway.url, service)
    await until(probe, { limitMs: GATEWAY_LIMIT_MS, ended: gateway.ended, signal })
  }
  const { brokers, databaseUrls, kafka, postgres } = servers
  const nginx = { url: gateway.url, nginxPid: gateway.pid }
  return { ...nginx, brokers, databaseUrls, replicas, kafka, postgres }
}

type Addresses = Pick<ReplicaContext, 'brokers' | 'databaseUrls' | 'gatewayUrl'>

/**
 * The addresses at which each service reaches the servers and nginx, through the caller's proxies if there
 * are any.
 */
async function addressesFor(
  proxyFor: StackStart['proxyFor'],
  { brokersOf, databaseUrls, postgres }: Servers,
  gatewayUrl: string,
): Promise<Record<ServiceName, Addresses>> {
  const via = async (from: ServiceName, to: Dependency, url: string) => {
    if (!proxyFor || (to === 'postgres' && !postgres)) return url
    const changed = new URL(url)
    changed.port = String(await proxyFor(from, to, Number(changed.port)))
    // URL appends a slash. It is removed, because paths are appended to the address.
    return changed.href.replace(/\/$/, '')
  }
  const entries = SERVICES.map(async (service): Promise<[ServiceName, Addresses]> => {
    const own = await via(service, 'postgres', databaseUrls[service])
    const servers = {
      brokers: brokersOf[service],
      databaseUrls: { ...databaseUrls, [service]: own },
    }
    return [service, { ...servers, gatewayUrl: await via(service, 'gateway', gatewayUrl) }]
  })
  return Object.fromEntries(await Promise.all(entries)) as Record<ServiceName, Addresses>
}

/** Keeps the logs of the previous start, so that they can still be read after a restart. */
function rotateLogs(logs: string): void {
  if (!existsSync(logs)) return
  rmSync(`${logs}-before`, { recursive: true, force: true })
  renameSync(logs, `${logs}-before`)
}

interface ServersStart extends StackStart {
  readonly folder: string
  readonly logs: string
  readonly processes: number
}

interface Servers extends Pick<Stack, 'brokers' | 'databaseUrls' | 'kafka' | 'postgres'> {
  /** The brokers that each service is configured with. */
  readonly brokersOf: Readonly<Record<ServiceName, string>>
}

/**
 * Starts Kafka with the topics, and PostgreSQL with the databases. If one server fails to start, the start of
 * the other is still awaited, so that it can be stopped.
 */
async function startServers(
  start: ServersStart,
  closers: (() => Promise<unknown> | undefined)[],
): Promise<Servers> {
  const { KAFKA_BROKERS, DATABASE_URL } = start.environment
  const mayUse = start.docker === 'auto' && !start.proxyFor && !(KAFKA_BROKERS && DATABASE_URL)
  const docker = mayUse ? await findDocker() : undefined
  const stopServers: (() => Promise<void>)[] = []
  closers.push(() => Promise.all(stopServers.map((stop) => stop())))
  const both = [
    kafkaWithTopics(start, docker, stopServers),
    serverWithDatabases(start, docker, stopServers),
  ] as const
  await Promise.allSettled(both)
  const [{ brokers, brokersOf, kafka }, { url: serverUrl, postgres }] = await Promise.all(both)
  const databaseUrls = {
    order: databaseUrl(serverUrl, DATABASES.order),
    billing: databaseUrl(serverUrl, DATABASES.billing),
    notification: databaseUrl(serverUrl, DATABASES.notification),
  }
  return { brokers, brokersOf, databaseUrls, kafka, postgres }
}

async function kafkaWithTopics(
  { environment, folder, portOffset = 0, proxyFor, signal, say }: ServersStart,
  docker: Docker | undefined,
  stopServers: (() => Promise<void>)[],
): Promise<Pick<Servers, 'brokers' | 'brokersOf' | 'kafka'>> {
  let brokers = environment.KAFKA_BROKERS
  let server: Restartable | undefined
  let listeners: readonly KafkaListener[] = []
  if (!brokers) {
    say('Kafka: starting')
    const port = await freePorts(KAFKA_PORT + portOffset, proxyFor ? 2 + SERVICES.length : 2)
    if (proxyFor) listeners = await listenersFrom(port + 2, proxyFor)
    const own = join(folder, 'kafka')
    const kafka = await startKafka({ folder: own, port, listeners, docker, signal, say })
    stopServers.push(kafka.close)
    ;({ brokers, server } = kafka)
  }
  say(`Kafka: at ${brokers}`)
  for (const sentence of await createTopics(brokers, TOPICS)) say(`topic ${sentence}`)
  const brokersOf = { order: brokers, billing: brokers, notification: brokers }
  for (const [index, { advertisedPort }] of listeners.entries()) {
    brokersOf[SERVICES[index]!] = `127.0.0.1:${advertisedPort}`
  }
  return { brokers, brokersOf, kafka: server }
}

/** One listener of the broker for each service, so that each service can have its own proxy. */
function listenersFrom(first: number, proxyFor: NonNullable<StackStart['proxyFor']>) {
  const listeners = SERVICES.map(async (service, index): Promise<KafkaListener> => {
    const port = first + index
    const advertisedPort = await proxyFor(service, 'kafka', port)
    return { name: service.toUpperCase(), port, advertisedPort }
  })
  return Promise.all(listeners)
}

async function serverWithDatabases(
  { environment, folder, logs, portOffset = 0, processes, signal, say }: ServersStart,
  docker: Docker | undefined,
  stopServers: (() => Promise<void>)[],
): Promise<{ readonly url: string; readonly postgres: Restartable | undefined }> {
  let url = environment.DATABASE_URL
  let server: Restartable | undefined
  if (!url) {
    say('PostgreSQL: starting')
    const postgres = await startPostgres({
      folder: join(folder, 'postgres'),
      port: await freePorts(POSTGRES_PORT + portOffset, 1),
      maxConnections: CONNECTIONS_PER_PROCESS * processes + EXTRA_CONNECTIONS,
      logFile: join(logs, 'postgres.log'),
      docker,
      signal,
      say: (line) => say(`PostgreSQL: ${line}`),
    })
    stopServers.push(postgres.close)
    ;({ url, server } = postgres)
  }
  const made = await makeDatabases(url, Object.values(DATABASES))
  const created = made.length > 0 ? `, created ${made.join(', ')}` : ''
  say(`PostgreSQL: at ${new URL(url).host}${created}`)
  return { url, postgres: server }
}

async function servicePorts(
  counts: StackOptions['replicas'],
  portOffset: number,
): Promise<Record<ServiceName, readonly number[]>> {
  const ports: Record<ServiceName, readonly number[]> = { order: [], billing: [], notification: [] }
  for (const service of SERVICES) {
    const first = await freePorts(SERVICE_PORTS[service] + portOffset, counts[service])
    ports[service] = Array.from({ length: counts[service] }, (_, index) => first + index)
  }
  return ports
}

function summary({ url, brokers, databaseUrls, replicas, folder }: Stack, seconds: string): string {
  const line = (name: string, text: string) => `  ${name.padEnd(14)}${text}\n`
  const services = SERVICES.map((service) => {
    const own = replicas.filter((one) => one.service === service)
    return line(service, own.map((one) => `${one.url} (pid ${one.server.pid})`).join('  '))
  })
  return [
    `\nThe stack is ready after ${seconds} s, at ${url}; Ctrl-C stops it\n\n`,
    line('nginx', url),
    ...services,
    line('Kafka', brokers),
    ...SERVICES.map((service) => line('PostgreSQL', databaseUrls[service])),
    line('logs', join(relative('.', folder) || '.', 'logs')),
    '\n',
  ].join('')
}

async function main(environment: StackStart['environment'], options: StackOptions) {
  const startedMs = performance.now()
  const starting = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => starting.abort(new Error(`${name} before the stack was ready`)))
  }
  const say = (line: string) => {
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)
    console.log(`${seconds} s  ${line}`)
  }
  const stack = await startStack({ ...options, environment, signal: starting.signal, say })
  console.log(summary(stack, ((performance.now() - startedMs) / 1000).toFixed(1)))
  let closing = false
  for (const { service, number, server, logFile } of stack.replicas) {
    server.ended.then((code) => {
      if (!closing) say(`${service} ${number} exited with code ${code}: see ${logFile}`)
    })
  }
  return {
    async close() {
      closing = true
      await stack.close()
      console.log('The stack has stopped.')
    },
  }
}

if (import.meta.main) {
  try {
    const options = stackOptions(process.argv.slice(2))
    if (options === undefined) console.log(USAGE)
    else {
      await runProcess('stack', (environment) => main(environment, options), {
        deadlineMs: CLOSE_LIMIT_MS,
      })
    }
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`)
    process.exitCode = 2
  }
}
