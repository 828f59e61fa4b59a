import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import { until } from '../../platform/async/until.ts'
import { root } from '../../tools/repository-files.ts'
import { startKafka } from '../../tools/servers/kafka.ts'
import { startNginx } from '../../tools/servers/nginx.ts'
import { freePorts } from '../../tools/servers/ports.ts'
import { databaseUrl, makeDatabases, startPostgres } from '../../tools/servers/postgres.ts'
import { isReady, type Replica, startReplicas, stopReplicas } from '../../tools/stack/services.ts'
import {
  type Answer,
  type Client,
  createClient,
  eventually,
  type Problem,
  UNIT_PRICE,
} from '../e2e/client.ts'
import { temporaryFolder } from '../e2e/program.ts'
import { fetchFromReplica } from './own-stack.ts'

const LIMIT_MS = 90_000
const CONNECTIONS = 100
/** Long enough for at least one more attempt of the relay, which polls every 5 s. */
const WAITS_SECONDS = 6

const { folder, remove } = await temporaryFolder()
const closers: (() => Promise<void>)[] = [remove]
after(async () => {
  for (const close of closers.reverse()) await close()
})
const somewhere = 9_900 + Math.floor(Math.random() * 600)
const port = await freePorts(somewhere, 7)
const [gatewayPort, postgresPort, kafkaPort] = [port, port + 1, port + 2]
const ports = { order: [port + 4], billing: [port + 5], notification: [port + 6] }
const addressOf = ([one]: readonly number[]) => [`127.0.0.1:${one}`]

const logs = join(folder, 'logs')
mkdirSync(logs)
const gateway = await startNginx(join(folder, 'nginx'), {
  port: gatewayPort,
  basePath: '/otusapp/gur-ok',
  upstreams: {
    orders: addressOf(ports.order),
    billing: addressOf(ports.billing),
    notification: addressOf(ports.notification),
  },
})
closers.push(gateway.close)
const client = createClient(gateway.url)

test('services start before their dependencies, wait for them, and work once the dependencies are up', {
  timeout: 400_000,
}, async () => {
  const postgresFolder = join(folder, 'postgres')
  // The services get the password before the database server exists.
  const password = crypto.randomUUID()
  mkdirSync(postgresFolder)
  writeFileSync(join(postgresFolder, 'password'), password, { mode: 0o600 })
  const serverUrl = `postgres://trifold:${password}@127.0.0.1:${postgresPort}/postgres`
  const brokers = `127.0.0.1:${kafkaPort}`
  const replicas = await startReplicas(ports, () => ({
    brokers,
    logs,
    gatewayUrl: gateway.url,
    basePath: '/otusapp/gur-ok',
    environment: {},
    maildir: join(folder, 'mail'),
    databaseUrls: {
      order: databaseUrl(serverUrl, 'orders'),
      billing: databaseUrl(serverUrl, 'billing'),
      notification: databaseUrl(serverUrl, 'notification'),
    },
  }))
  closers.push(() => stopReplicas(replicas))
  const pids = replicas.map(({ server }) => server.pid)
  const account = crypto.randomUUID()

  // No dependency is up: services are alive, not ready, and reject requests with a problem document.
  await Promise.all(replicas.map(assertAlive))
  for (const replica of replicas) {
    const { status, body } = await fetchFromReplica(replica, 'actuator/health/readiness')
    assert.equal(status, 503, body)
  }
  for (const style of STYLES) {
    assertRefused(await client.order(account, { style }))
    assertRefused(await client.call('POST', '/billing/account/create', { style }))
  }
  assertRefused(await client.call('GET', '/notification/'))

  // A PostgreSQL server without the services' databases is not enough.
  const postgres = await startPostgres({
    folder: postgresFolder,
    port: postgresPort,
    maxConnections: CONNECTIONS,
    logFile: join(logs, 'postgres.log'),
  })
  closers.push(postgres.close)
  assertRefused(await client.order(account))
  await makeDatabases(postgres.url, ['orders', 'billing', 'notification'])

  // With the database but without the broker, the services are not ready, but serve all requests that need no
  // broker.
  const rich = await eventually(async () => {
    const { status, body } = await client.call<string>('POST', '/billing/account/create')
    assert.equal(status, 200)
    return body
  }, LIMIT_MS)
  await eventually(async () => {
    const { status } = await client.call('GET', '/notification/')
    assert.equal(status, 200)
  }, LIMIT_MS)
  await eventually(async () => {
    const { status } = await client.call('GET', `/orders/?profileId=${rich}`)
    assert.equal(status, 200)
  }, LIMIT_MS)
  await client.deposit(rich, 10 * UNIT_PRICE)
  const placed = new Map<InteractionStyle, string>()
  for (const style of STYLES) placed.set(style, await placeOrder(client, rich, style))
  const early = async (style: InteractionStyle) =>
    (await client.getOrder(rich, placed.get(style)!, 0)).state
  assert.equal(await early('http'), 'APPROVED')
  assert.equal(await early('hybrid'), 'APPROVED')
  assert.equal(await early('events'), 'PENDING')
  for (const replica of replicas) {
    const { status, body } = await fetchFromReplica(replica, 'actuator/health/readiness')
    assert.equal(status, 503)
    const { components } = JSON.parse(body)
    assert.deepEqual(components, { database: { status: 'UP' }, broker: { status: 'DOWN' } })
  }

  // A broker without the topics is reachable, but events still wait.
  const kafka = await startKafka({ folder: join(folder, 'kafka'), port: kafkaPort })
  closers.push(kafka.close)
  const limits = { limitMs: LIMIT_MS, signal: AbortSignal.timeout(LIMIT_MS) }
  for (const { url, service } of replicas) await until(() => isReady(url, service), limits)
  await assertStillPending(rich, placed.get('events')!)
  const topics = spawnSync(process.execPath, [join(root, 'apps', 'topics', 'main.ts')], {
    env: { ...process.env, KAFKA_BROKERS: brokers },
    encoding: 'utf8',
  })
  assert.equal(topics.status, 0, topics.stderr)

  // All dependencies are up: waiting orders settle without intervention, and all styles work.
  await assertApproved(rich, placed.get('events')!)
  for (const style of STYLES) await assertApproved(rich, await placeOrder(client, rich, style))
  await eventually(async () => {
    const texts = (await client.messages(rich)).map(({ text }) => text)
    assert.equal(texts.filter((text) => text.endsWith('PAID SUCCESSFULLY')).length, 6)
    assert.equal(texts.length, 7)
  }, LIMIT_MS)
  assert.deepEqual(
    replicas.map(({ server }) => server.pid),
    pids,
  )
})

async function assertAlive(replica: Replica): Promise<void> {
  const alive = async () =>
    (await fetchFromReplica(replica, 'actuator/health/liveness')).status === 200
  await until(alive, { limitMs: LIMIT_MS, ended: replica.server.ended })
}

function assertRefused({ status, headers, body }: Answer): void {
  assert.equal(status, 503, JSON.stringify(body))
  assert.match(headers.get('content-type') ?? '', /^application\/problem\+json/)
  assert.match(headers.get('retry-after') ?? '', /^\d+$/)
  assert.equal((body as Problem).code, 'SERVICE_UNAVAILABLE')
}

async function placeOrder(
  { order }: Client,
  account: string,
  style: InteractionStyle,
): Promise<string> {
  const { status, body } = await order(account, { style })
  assert.equal(status, 201, JSON.stringify(body))
  return body
}

/** Asserts that the order is pending, even after the relay has had time to try again. */
async function assertStillPending(account: string, id: string): Promise<void> {
  const { state } = await client.getOrder(account, id, WAITS_SECONDS)
  assert.equal(state, 'PENDING')
}

async function assertApproved(account: string, id: string): Promise<void> {
  await eventually(async () => {
    assert.equal((await client.getOrder(account, id)).state, 'APPROVED')
  }, LIMIT_MS)
}
