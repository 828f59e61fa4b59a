import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, symlinkSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { DeadLetterView } from '../../contracts/http.ts'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import { createKafkaBus } from '../../messaging/kafka/bus.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { MIGRATIONS as BILLING_MIGRATIONS } from '../../services/billing/migrations/all-migrations.ts'
import { MIGRATIONS as NOTIFICATION_MIGRATIONS } from '../../services/notification/migrations/all-migrations.ts'
import { MIGRATIONS as ORDER_MIGRATIONS } from '../../services/order/migrations/all-migrations.ts'
import { root } from '../../tools/repository-files.ts'
import { SERVICES } from '../../tools/stack/options.ts'
import { PATHS, type Replica, replicasReady } from '../../tools/stack/services.ts'
import { eventually, UNIT_PRICE } from '../e2e/client.ts'
import { stopWell } from '../e2e/stack-program.ts'
import { type Customers, startShopping } from './customers.ts'
import { fetchFromReplica, metricOf, type OwnStack, startOwnStack } from './own-stack.ts'
import { assertPromisesKept } from './promises.ts'

/** The old version: the last commit before events and schemas had to be compatible. */
const OLD_VERSION = 'd2c7604eb1d186a8976199eb2d160ab82aacde18'
const READY_LIMIT_MS = 60_000
const SETTLE_LIMIT_MS = 90_000
/** The minimum traffic in each phase of the upgrade. */
const ERRANDS_EACH_PHASE = 30
const MESSAGES_EACH_REPLICA = 5
const PHASE_LIMIT_MS = 90_000
const FUNDS = 100

const skip = missingOldVersion()
const NAME = 'a rolling upgrade with two replicas of each service'

describe(skip ? `${NAME} (skipped: ${skip})` : NAME, { skip, timeout: 600_000 }, () => {
  let stack: OwnStack
  let oldCheckout: string
  let customers: Customers | undefined
  const upgraded = new Set<number>()

  before(async () => {
    oldCheckout = await checkOutOldVersion()
    stack = await startOwnStack({ order: 2, billing: 2, notification: 2 }, {}, ({ number }) =>
      upgraded.has(number) ? root : oldCheckout,
    )
  })
  after(async () => {
    await customers?.stop()
    await stack?.close()
    rmSync(oldCheckout, { recursive: true, force: true })
  })

  const replicas = (service: Replica['service']) =>
    stack.replicas.filter((replica) => replica.service === service)

  /** Replaces one replica of each service with the new version. */
  async function upgrade(number: number): Promise<void> {
    const replaced = stack.replicas.filter((replica) => replica.number === number)
    await Promise.all(replaced.map(stopWell))
    upgraded.add(number)
    await Promise.all(replaced.map(({ server }) => server.start()))
    await replicasReady(replaced, AbortSignal.timeout(READY_LIMIT_MS), () => undefined)
  }

  /**
   * Resolves when customers have been served for a while and every replica has handled messages. Each round uses
   * new accounts, so that eventually every replica owns a partition with one of them.
   */
  async function served({ errands }: Customers): Promise<void> {
    const enough = errands.length + ERRANDS_EACH_PHASE
    const earlier = await Promise.all(stack.replicas.map(messagesHandled))
    for (const deadline = performance.now() + PHASE_LIMIT_MS; ; ) {
      await Promise.all(STYLES.map(payAndRefund))
      const now = await Promise.all(stack.replicas.map(messagesHandled))
      const handled = now.map((count, index) => count - earlier[index]!)
      if (errands.length >= enough && Math.min(...handled) >= MESSAGES_EACH_REPLICA) return
      assert.ok(performance.now() < deadline, `the replicas have handled ${handled} messages`)
    }
  }

  /** Pays an order and refunds it; one version can handle the payment and the other the refund. */
  async function payAndRefund(style: InteractionStyle): Promise<void> {
    const { client } = stack
    const account = await client.fundedAccount(FUNDS)
    const { body: orderId } = await client.order(account, { style })
    assert.equal((await client.getOrder(account, orderId)).state, 'APPROVED')
    await client.deleteOrder(account, orderId)
    await eventually(async () => assert.equal(await client.balance(account), FUNDS))
  }

  async function deadLetters(): Promise<readonly DeadLetterView[]> {
    const lists = Object.values(PATHS).map((path) =>
      stack.client.readAll<DeadLetterView>(`/${path}/dead-letters`),
    )
    return (await Promise.all(lists)).flat()
  }

  test('serves customers in every style, without dead letters and without unsettled orders', async (t) => {
    customers = await startShopping(stack.client)
    await served(customers)
    assert.notDeepEqual(await lastMigrations(stack), LAST_MIGRATIONS)
    await upgrade(1)
    assert.deepEqual(await lastMigrations(stack), LAST_MIGRATIONS)
    await served(customers)
    await upgrade(2)
    await served(customers)
    await customers.stop()
    await customers.finishAll(SETTLE_LIMIT_MS)
    const { accounts, errands } = customers
    await assertPromisesKept(stack.client, accounts, errands, SETTLE_LIMIT_MS)
    assert.deepEqual(await deadLetters(), [])
    await stack.untilInvariantsHold(SETTLE_LIMIT_MS)
    const attempts = errands.flatMap((errand) => errand.attempts)
    t.diagnostic(`${errands.length} errands in ${attempts.length} requests`)
  })

  test('then skips unknown events and ignores unknown fields of an even newer version, and counts them', async () => {
    const { client } = stack
    const accountId = await client.fundedAccount(2 * UNIT_PRICE)
    const { body: orderId } = await client.order(accountId, { style: 'events' })
    assert.equal((await client.getOrder(accountId, orderId)).state, 'APPROVED')
    const readers = [
      ['billing', 'billing'],
      ['order', 'payment'],
      ['notification', 'payment'],
    ] as const
    const unknown = (kind: 'events' | 'fields') =>
      Promise.all(
        readers.map(async ([service, topic]) => {
          const metric = `trifold_consumer_unknown_${kind}_total`
          const scrapes = await Promise.all(
            replicas(service).map((replica) => fetchFromReplica(replica, 'actuator/prometheus')),
          )
          const counts = scrapes.map(({ body }) => metricOf(body, metric, `topic="${topic}"`) ?? 0)
          return counts.reduce((sum, count) => sum + count)
        }),
      )
    assert.deepEqual([await unknown('events'), await unknown('fields')], [NONE, NONE])

    await asNewerVersion(stack, accountId, [
      ['billing', { event: 'CREDIT_REQUEST', accountId, limit: 100 }],
      ['billing', { event: 'DEPOSIT_REQUEST', accountId, value: 7, campaign: 'spring' }],
      ['payment', { event: 'ORDER_SHIPPED', orderId, accountId }],
      ['payment', { event: 'ORDER_PAID', orderId, accountId, receipt: 'R-1' }],
    ])
    await eventually(async () => {
      assert.deepEqual([await unknown('events'), await unknown('fields')], [ONE_EACH, ONE_EACH])
      assert.equal(await client.balance(accountId), UNIT_PRICE + 7)
    }, SETTLE_LIMIT_MS)
    assert.deepEqual(await deadLetters(), [])
    await stack.untilInvariantsHold(SETTLE_LIMIT_MS)
  })
})

const NONE = [0, 0, 0]
const ONE_EACH = [1, 1, 1]

const LAST_MIGRATIONS = [ORDER_MIGRATIONS, BILLING_MIGRATIONS, NOTIFICATION_MIGRATIONS].map(
  (migrations) => migrations.at(-1)?.id,
)

/** The last migration of each service's schema. */
function lastMigrations({ databaseUrls }: OwnStack): Promise<(number | undefined)[]> {
  return Promise.all(
    SERVICES.map(async (service) => {
      const database = await openPostgres({ url: databaseUrls[service], maxConnections: 1 })
      try {
        const rows = await database.query<{ id: number }>(
          `select max(id) as id from ${PATHS[service]}.migration`,
        )
        return rows[0]?.id
      } finally {
        await database.close()
      }
    }),
  )
}

async function messagesHandled(replica: Replica): Promise<number> {
  const { body } = await fetchFromReplica(replica, 'actuator/prometheus')
  return metricOf(body, 'trifold_consumer_messages_total') ?? 0
}

/** Sends bodies under the ids of their events, so an outcome that was announced before is redelivered. */
async function asNewerVersion(
  { brokers }: OwnStack,
  key: string,
  messages: readonly (readonly ['billing' | 'payment', Readonly<Record<string, unknown>>])[],
): Promise<void> {
  const bus = await createKafkaBus({
    brokers: brokers.split(','),
    clientId: 'newer-version',
    runtime: systemRuntime,
    log: createLog('silent', 'newer-version'),
  })
  try {
    await bus.send(
      messages.map(([topic, body]) => ({
        topic,
        key,
        value: new TextEncoder().encode(JSON.stringify(body)),
        headers: { ce_id: `${body.orderId ?? crypto.randomUUID()}/${body.event}` },
      })),
    )
  } finally {
    await bus.close()
  }
}

/** The reason why the old version cannot run here, or false if it can. */
function missingOldVersion(): string | false {
  const packages = spawnSync('git', ['show', `${OLD_VERSION}:package.json`], { cwd: root })
  if (packages.status !== 0) {
    return `this clone's history lacks ${OLD_VERSION.slice(0, 7)}; git fetch --unshallow gets it`
  }
  const dependencies = (text: string) => JSON.stringify(JSON.parse(text).dependencies)
  const current = readFileSync(join(root, 'package.json'), 'utf8')
  if (dependencies(packages.stdout.toString()) === dependencies(current)) return false
  return `${OLD_VERSION.slice(0, 7)} needs other dependencies than this version: pin a later release`
}

/** Checks out the old version into a temporary folder, with this checkout's packages. */
async function checkOutOldVersion(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'trifold-old-'))
  const archive = join(folder, 'old.tar')
  for (const [command, args] of [
    ['git', ['-C', root, 'archive', '--output', archive, OLD_VERSION]],
    ['tar', ['-xf', archive, '-C', folder]],
  ] as const) {
    const { status, stderr } = spawnSync(command, args)
    assert.equal(status, 0, `${command}: ${stderr}`)
  }
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  return folder
}
