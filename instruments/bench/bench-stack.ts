import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Admin } from '@platformatic/kafka'
import { type Client, escapeIdentifier } from 'pg'
import { createTopics } from '../../apps/topics/main.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { until } from '../../platform/async/until.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { lockFolder } from '../../platform/pglite/folder-lock.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { MIGRATIONS as BILLING } from '../../services/billing/migrations/all-migrations.ts'
import { MIGRATIONS as NOTIFICATION } from '../../services/notification/migrations/all-migrations.ts'
import { MIGRATIONS as ORDERS } from '../../services/order/migrations/all-migrations.ts'
import { untilAtRest } from '../../tests/support/at-rest.ts'
import { root } from '../../tools/repository-files.ts'
import { startKafka } from '../../tools/servers/kafka.ts'
import { type KeptProcess, lastLines, startKept } from '../../tools/servers/kept-process.ts'
import { freePorts } from '../../tools/servers/ports.ts'
import {
  databaseUrl,
  makeDatabases,
  startPostgres,
  superuserUrl,
} from '../../tools/servers/postgres.ts'
import type { Restartable } from '../../tools/servers/restartable.ts'
import { SERVICES, type ServiceName } from '../../tools/stack/options.ts'
import { isReady, replicaEnvironment } from '../../tools/stack/services.ts'
import { inDatabase, openBooks } from './books.ts'

/**
 * One Kafka and one PostgreSQL with their default settings (so fsync is on), the services as processes that
 * call each other directly, a database for each service, and one for the references.
 */
export interface BenchStack {
  readonly brokers: string
  readonly kafka: Restartable
  readonly postgres: Restartable
  /** Connection URLs of PostgreSQL's superuser, by database. */
  readonly urls: Readonly<Record<ServiceName | 'reference', string>>
  readonly folder: string
  readonly say: (line: string) => void
  /**
   * Makes exactly these services run, and resolves when all are ready. A service that already runs with the same
   * settings and flags keeps running.
   */
  serve(
    names: readonly ServiceName[],
    settings?: Settings,
    flags?: NodeSettings['flags'],
  ): Promise<Running>
  /** Ends a service with SIGKILL; `serve` starts it again. */
  kill(service: ServiceName): Promise<void>
  /**
   * Waits until the services have no work left, because work in flight would end up in the new books; then
   * empties the books and opens `accounts` accounts.
   */
  openBooks(accounts: number): Promise<void>
  /** Resolves when the services have no work left. */
  rest(): Promise<void>
  /**
   * Stops the services and discards their unfinished work: rows of their tables, messages of their topics.
   * Used after a contest that ran only some services: the other services would finish its work during the
   * next contest.
   */
  discardWork(): Promise<void>
  close(): Promise<void>
}

export interface Running {
  /** The URL of each service, whether it runs or not. */
  readonly urls: Readonly<Record<ServiceName, string>>
  /** The process ids of the services that run. */
  readonly pids: Readonly<Record<string, number>>
  /** Milliseconds from start to ready, for each service that this call started. */
  readonly readyMs: Readonly<Record<string, number>>
}

export type Settings = Readonly<Record<string, string>>

/** Flags and environment of the Node.js process. */
export interface NodeSettings {
  readonly flags?: readonly string[]
  readonly env?: Settings
}

/** The ports are below those of the stack and of the tests, which can run at the same time. */
const KAFKA_PORT = 19_392
const POSTGRES_PORT = 19_440
const SERVICE_PORT = 19_411
const MAX_CONNECTIONS = 120
const READY_LIMIT_MS = 60_000
const STOP_LIMIT_MS = 25_000
const REST_LIMIT_MS = 120_000
const LOG_LINES = 10
const DATABASES = {
  order: 'orders',
  billing: 'billing',
  notification: 'notification',
  reference: 'reference',
} as const

export async function openBenchStack(
  say: (line: string) => void,
  folder = join(root, 'data', 'bench'),
): Promise<BenchStack> {
  mkdirSync(folder, { recursive: true })
  const lock = lockFolder(folder)
  const closers: (() => Promise<unknown>)[] = [async () => lock.release()]
  async function close(): Promise<void> {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    for (const part of ['kafka', 'logs'])
      rmSync(join(folder, part), { recursive: true, force: true })
    mkdirSync(join(folder, 'logs'))
    const postgres = await startPostgres({
      folder: join(folder, 'postgres'),
      port: await freePorts(POSTGRES_PORT, 1),
      maxConnections: MAX_CONNECTIONS,
      logFile: join(folder, 'logs', 'postgres.log'),
    })
    closers.push(postgres.close)
    const port = await freePorts(KAFKA_PORT, 2)
    const kafka = await startKafka({
      folder: join(folder, 'kafka'),
      port,
      say,
      defaultHeap: true,
    })
    closers.push(kafka.close)
    const { brokers } = kafka
    await createTopics(brokers, TOPICS)
    const urls = await recreateDatabases(postgres.url)
    const services = await createServices({ brokers, urls, folder })
    closers.push(services.close)
    const { serve, kill } = services
    const rest = () => stackAtRest(urls, brokers)
    async function openOwnBooks(accounts: number): Promise<void> {
      await rest()
      await openBooks(urls, accounts)
    }
    async function discardWork(): Promise<void> {
      await serve([])
      await openBooks(urls, 0)
      await deleteTopics(brokers)
      await createTopics(brokers, TOPICS)
    }
    return {
      brokers,
      urls,
      folder,
      say,
      serve,
      kill,
      rest,
      discardWork,
      close,
      openBooks: openOwnBooks,
      kafka: kafka.server,
      postgres: postgres.server,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/**
 * Drops the databases of earlier runs; creates one with the tables of each service, and one with all tables for the
 * references.
 */
async function recreateDatabases(serverUrl: string): Promise<BenchStack['urls']> {
  const superuser = superuserUrl(serverUrl)
  await inDatabase(superuser, async (client: Client) => {
    for (const name of Object.values(DATABASES)) {
      await client.query(`drop database if exists ${escapeIdentifier(name)} with (force)`)
    }
  })
  await makeDatabases(superuser, Object.values(DATABASES))
  const urlOf = (name: string) => databaseUrl(superuser, name)
  const urls = {
    order: urlOf(DATABASES.order),
    billing: urlOf(DATABASES.billing),
    notification: urlOf(DATABASES.notification),
    reference: urlOf(DATABASES.reference),
  }
  await migrateTo(urls.order, { orders: ORDERS })
  await migrateTo(urls.billing, { billing: BILLING })
  await migrateTo(urls.notification, { notification: NOTIFICATION })
  await migrateTo(urls.reference, {
    orders: ORDERS,
    billing: BILLING,
    notification: NOTIFICATION,
  })
  return urls
}

async function migrateTo(url: string, schemas: Readonly<Record<string, typeof ORDERS>>) {
  const database = await openPostgres({ url, maxConnections: 1 })
  for (const [schema, migrations] of Object.entries(schemas)) {
    await migrate(database, schema, migrations)
  }
  await database.close()
}

async function stackAtRest(urls: BenchStack['urls'], brokers: string): Promise<void> {
  const open = (url: string) => openPostgres({ url, maxConnections: 1, readsWholeTables: true })
  const databases = {
    orders: await open(urls.order),
    billing: await open(urls.billing),
    notification: await open(urls.notification),
  }
  try {
    await untilAtRest({ databases, brokers: [brokers] }, REST_LIMIT_MS)
  } finally {
    for (const database of Object.values(databases)) await database.close()
  }
}

async function deleteTopics(brokers: string): Promise<void> {
  const admin = new Admin({ clientId: 'bench', bootstrapBrokers: [brokers] })
  await admin.deleteTopics({ topics: TOPICS.map(({ name }) => name) })
  await admin.close()
}

/** The services as processes, which `serve` starts and stops. */
async function createServices(around: {
  readonly brokers: string
  readonly urls: BenchStack['urls']
  readonly folder: string
}) {
  const { brokers, urls: databaseUrls, folder } = around
  const first = await freePorts(SERVICE_PORT, SERVICES.length)
  const ports = { order: first, billing: first + 1, notification: first + 2 }
  const urlOf = (service: ServiceName) => `http://127.0.0.1:${ports[service]}`
  const urls = {
    order: urlOf('order'),
    billing: urlOf('billing'),
    notification: urlOf('notification'),
  }
  const running = new Map<
    ServiceName,
    { readonly kept: KeptProcess; readonly startedWith: string }
  >()

  /** Resolves with the milliseconds from start to ready. */
  async function start(
    service: ServiceName,
    settings: Settings,
    flags: readonly string[],
  ): Promise<number> {
    const startedMs = performance.now()
    const logs = join(folder, 'logs')
    const environment = replicaEnvironment(
      { service, number: 1, port: ports[service] },
      {
        brokers,
        databaseUrls,
        logs,
        gatewayUrl: '',
        basePath: '/otusapp/gur-ok',
        maildir: join(folder, 'mail'),
        environment: { LOG_LEVEL: 'warn', ...settings },
      },
    )
    const direct = {
      ORDER_URL: urls.order,
      BILLING_URL: urls.billing,
      NOTIFICATION_URL: urls.notification,
    }
    const logFile = join(logs, `${service}.log`)
    const kept = await startKept({
      command: process.execPath,
      args: [...flags, join(root, 'services', service, 'main.ts')],
      // A folder without a developer's .env file.
      folder,
      env: { ...environment, ...direct },
      logFile,
    })
    running.set(service, { kept, startedWith: JSON.stringify([settings, flags]) })
    const { ended } = kept
    try {
      await until(() => isReady(urls[service], service), { limitMs: READY_LIMIT_MS, ended })
    } catch (cause) {
      const last = lastLines(logFile, LOG_LINES)
      throw new Error(`${service} is not ready: ${(cause as Error).message}\n${last}`, { cause })
    }
    return performance.now() - startedMs
  }

  async function stop(service: ServiceName): Promise<void> {
    const one = running.get(service)
    running.delete(service)
    await one?.kept.stop(STOP_LIMIT_MS)
  }

  async function kill(service: ServiceName): Promise<void> {
    const { kept } = running.get(service)!
    running.delete(service)
    process.kill(kept.pid, 'SIGKILL')
    await kept.ended
  }

  async function serve(
    names: readonly ServiceName[],
    settings: Settings = {},
    flags: readonly string[] = [],
  ): Promise<Running> {
    const startedWith = JSON.stringify([settings, flags])
    // Callers stop before the services that they call, as in an orderly shutdown.
    for (const service of SERVICES) {
      const one = running.get(service)
      if (one && (!names.includes(service) || one.startedWith !== startedWith)) await stop(service)
    }
    const missing = names.filter((service) => !running.has(service))
    // The services start one by one, because they would slow each other down.
    const readyMs: Record<string, number> = {}
    for (const service of missing) readyMs[service] = await start(service, settings, flags)
    const pids = [...running].map(([service, { kept }]) => [service, kept.pid])
    return { urls, pids: Object.fromEntries(pids), readyMs }
  }

  return { serve, kill, close: () => serve([]) }
}
