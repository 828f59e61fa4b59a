import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { createTopics } from '../../apps/topics/main.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { until } from '../../platform/async/until.ts'
import { lockFolder } from '../../platform/pglite/folder-lock.ts'
import { runProcess } from '../../platform/process/process.ts'
import { root } from '../repository-files.ts'
import { type Docker, findDocker } from '../servers/docker.ts'
import { type KafkaDoor, startKafka } from '../servers/kafka.ts'
import { startNginx } from '../servers/nginx.ts'
import { freePorts, isFree } from '../servers/ports.ts'
import { databaseUrl, makeDatabases, startPostgres } from '../servers/postgres.ts'
import type { Restartable } from '../servers/restartable.ts'
import { SERVICES, type ServiceName, type StackOptions, stackOptions, USAGE } from './options.ts'
import {
  type CheckoutOf,
  isReady,
  type Replica,
  replicasReady,
  type Surroundings,
  startReplicas,
  stopReplicas,
} from './services.ts'

/** Kafka, PostgreSQL, nginx, and the services as processes of their own. */
export interface Stack {
  /** Where nginx answers. */
  readonly url: string
  readonly brokers: string
  readonly databaseUrls: Readonly<Record<ServiceName, string>>
  readonly replicas: readonly Replica[]
  readonly nginxPid: number
  /** The servers that it started itself; undefined where it was told to use others. */
  readonly kafka: Restartable | undefined
  readonly postgres: Restartable | undefined
  /** What the stack keeps, and its logs. */
  readonly folder: string
  close(): Promise<void>
}

export interface StackStart extends StackOptions {
  readonly environment: Readonly<Record<string, string | undefined>>
  /** What a replica reads besides, asked for at each of its starts. */
  readonly environmentOf?: Surroundings['environmentOf']
  readonly checkoutOf?: CheckoutOf
  /** Gives up the start. */
  readonly signal: AbortSignal
  readonly say: (line: string) => void
  /**
   * Added to the usual ports of all but nginx, 0 unless told: of two stacks that look at the same
   * ports, one may take what the other has left for a moment.
   */
  readonly portOffset?: number
  /**
   * Puts something of the caller's on the way from a service to what it needs: told the port of that on
   * loopback, resolves with the port where the service is to look for it. Then nothing runs in
   * containers, and servers that were named are reached as they are.
   */
  readonly between?: (from: ServiceName, to: Needed, port: number) => Promise<number>
}

export type Needed = 'kafka' | 'postgres' | 'gateway'

const DATABASES = { order: 'orders', billing: 'billing', notification: 'notification' } as const
const KAFKA_PORT = 9092
const POSTGRES_PORT = 5440
/** The first replica of each service; the others follow. */
const SERVICE_PORTS = { order: 8011, billing: 8021, notification: 8031 } as const
/** A pool of a service is 10 unless told; and somebody may want to look inside. */
const CONNECTIONS_EACH = 12
const CONNECTIONS_MORE = 40
const GATEWAY_LIMIT_MS = 30_000
/** Three services in a row, each within its own limit, then the servers. */
const CLOSE_LIMIT_MS = 120_000

/**
 * Brings up the whole stack and resolves when it can be used. What was started is stopped again
 * when a later part does not start.
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

/** In the opposite order of their start. */
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
  keepLogsOfBefore(logs)
  for (const part of ['logs', 'mail', 'nginx']) mkdirSync(join(folder, part), { recursive: true })
  if (!(await isFree(port))) throw new Error(`port ${port} is in use; --port takes another one`)
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
  say(`nginx: answers at ${gateway.url}`)
  signal.throwIfAborted()

  const processes = Object.values(counts).reduce((sum, count) => sum + count)
  const servers = await startServers({ ...start, folder, logs, processes }, closers)
  signal.throwIfAborted()

  const maildir = resolve(environment.MAILDIR || join(folder, 'mail'))
  const reach = await reachOf(start.between, servers, gateway.url)
  const around = { basePath, maildir, logs, environment, environmentOf, checkoutOf }
  const replicas = await startReplicas(ports, (service) => ({ ...reach[service], ...around }))
  closers.push(() => stopReplicas(replicas))
  say('services: start')
  await replicasReady(replicas, signal, say)
  for (const service of SERVICES.filter((name) => counts[name] > 0)) {
    const asked = () => isReady(gateway.url, service)
    await until(asked, { limitMs: GATEWAY_LIMIT_MS, ended: gateway.ended, signal })
  }
  const { brokers, databaseUrls, kafka, postgres } = servers
  const nginx = { url: gateway.url, nginxPid: gateway.pid }
  return { ...nginx, brokers, databaseUrls, replicas, kafka, postgres }
}

type Reach = Pick<Surroundings, 'brokers' | 'databaseUrls' | 'gatewayUrl'>

/** What each service is told of the servers and of nginx, with what the caller puts between. */
async function reachOf(
  between: StackStart['between'],
  { brokersOf, databaseUrls, postgres }: Servers,
  gatewayUrl: string,
): Promise<Record<ServiceName, Reach>> {
  const via = async (from: ServiceName, to: Needed, url: string) => {
    if (!between || (to === 'postgres' && !postgres)) return url
    const changed = new URL(url)
    changed.port = String(await between(from, to, Number(changed.port)))
    // A URL gets a slash at its end, which is none of an address that paths are added to.
    return changed.href.replace(/\/$/, '')
  }
  const reach = SERVICES.map(async (service): Promise<[ServiceName, Reach]> => {
    const own = await via(service, 'postgres', databaseUrls[service])
    const told = { brokers: brokersOf[service], databaseUrls: { ...databaseUrls, [service]: own } }
    return [service, { ...told, gatewayUrl: await via(service, 'gateway', gatewayUrl) }]
  })
  return Object.fromEntries(await Promise.all(reach)) as Record<ServiceName, Reach>
}

/** Those of one start are kept for a look at what happened. */
function keepLogsOfBefore(logs: string): void {
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
  /** As each service is told. */
  readonly brokersOf: Readonly<Record<ServiceName, string>>
}

/** Kafka with the topics and PostgreSQL with the databases; both are awaited, whatever fails. */
async function startServers(
  start: ServersStart,
  closers: (() => Promise<unknown> | undefined)[],
): Promise<Servers> {
  const { KAFKA_BROKERS, DATABASE_URL } = start.environment
  const wanted = start.docker === 'auto' && !start.between && !(KAFKA_BROKERS && DATABASE_URL)
  const docker = wanted ? await findDocker() : undefined
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
  { environment, folder, portOffset = 0, between, signal, say }: ServersStart,
  docker: Docker | undefined,
  stopServers: (() => Promise<void>)[],
): Promise<Pick<Servers, 'brokers' | 'brokersOf' | 'kafka'>> {
  let brokers = environment.KAFKA_BROKERS
  let server: Restartable | undefined
  let doors: readonly KafkaDoor[] = []
  if (!brokers) {
    say('Kafka: starts')
    const port = await freePorts(KAFKA_PORT + portOffset, between ? 2 + SERVICES.length : 2)
    if (between) doors = await doorsFrom(port + 2, between)
    const own = join(folder, 'kafka')
    const kafka = await startKafka({ folder: own, port, doors, docker, signal, say })
    stopServers.push(kafka.close)
    ;({ brokers, server } = kafka)
  }
  say(`Kafka: at ${brokers}`)
  for (const sentence of await createTopics(brokers, TOPICS)) say(`topic ${sentence}`)
  const brokersOf = { order: brokers, billing: brokers, notification: brokers }
  for (const [index, { advertisedPort }] of doors.entries()) {
    brokersOf[SERVICES[index]!] = `127.0.0.1:${advertisedPort}`
  }
  return { brokers, brokersOf, kafka: server }
}

/** A door of the broker for each service, so that what is between stands before that one alone. */
function doorsFrom(first: number, between: NonNullable<StackStart['between']>) {
  const doors = SERVICES.map(async (service, index): Promise<KafkaDoor> => {
    const port = first + index
    const advertisedPort = await between(service, 'kafka', port)
    return { name: service.toUpperCase(), port, advertisedPort }
  })
  return Promise.all(doors)
}

async function serverWithDatabases(
  { environment, folder, logs, portOffset = 0, processes, signal, say }: ServersStart,
  docker: Docker | undefined,
  stopServers: (() => Promise<void>)[],
): Promise<{ readonly url: string; readonly postgres: Restartable | undefined }> {
  let url = environment.DATABASE_URL
  let server: Restartable | undefined
  if (!url) {
    say('PostgreSQL: starts')
    const postgres = await startPostgres({
      folder: join(folder, 'postgres'),
      port: await freePorts(POSTGRES_PORT + portOffset, 1),
      maxConnections: CONNECTIONS_EACH * processes + CONNECTIONS_MORE,
      logFile: join(logs, 'postgres.log'),
      docker,
      signal,
      say: (line) => say(`PostgreSQL: ${line}`),
    })
    stopServers.push(postgres.close)
    ;({ url, server } = postgres)
  }
  const made = await makeDatabases(url, Object.values(DATABASES))
  const news = made.length > 0 ? `, made ${made.join(', ')}` : ''
  say(`PostgreSQL: at ${new URL(url).host}${news}`)
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
  const begun = performance.now()
  const given = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => given.abort(new Error(`${name} came before it was ready`)))
  }
  const say = (line: string) => {
    const seconds = ((performance.now() - begun) / 1000).toFixed(1).padStart(6)
    console.log(`${seconds} s  ${line}`)
  }
  const stack = await startStack({ ...options, environment, signal: given.signal, say })
  console.log(summary(stack, ((performance.now() - begun) / 1000).toFixed(1)))
  let closing = false
  for (const { service, number, server, logFile } of stack.replicas) {
    server.ended.then((code) => {
      if (!closing) say(`${service} ${number} ended with code ${code}: see ${logFile}`)
    })
  }
  return {
    async close() {
      closing = true
      await stack.close()
      console.log('The stack is stopped.')
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
