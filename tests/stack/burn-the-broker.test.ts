import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Admin } from '@platformatic/kafka'
import type { Violation } from '../../apps/audit/findings.ts'
import { lettersIn } from '../../apps/audit/maildir.ts'
import { createTopics } from '../../apps/topics/main.ts'
import { STYLES } from '../../contracts/style.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { PATHS, replicasReady } from '../../tools/stack/services.ts'
import { eventually } from '../e2e/client.ts'
import { assertAllRead } from '../e2e/invariants.ts'
import { type Customers, orderOf, startShopping } from './customers.ts'
import { attemptOnce, type Errand, finalResponseOf } from './errands.ts'
import { fetchFromReplica, metricOf, startOwnStack } from './own-stack.ts'
import { assertPromisesKept } from './promises.ts'

/**
 * The broker holds no data that the services cannot recover. Its data is deleted while the services run, and
 * the consumer groups are reset to the start of the log. Even so, money moves once and each letter is sent
 * once.
 */
const ERRANDS = 60
const LIMIT_MS = 120_000
const TIMEOUT = { timeout: 500_000 }

const stack = await startOwnStack({ order: 1, billing: 1, notification: 1 })
after(() => stack.close())
const { client, replicas } = stack
const billing = replicas.find(({ service }) => service === 'billing')!

const finalCount = ({ errands }: Customers) => errands.filter(finalResponseOf).length
async function shopToTheEnd(): Promise<Customers> {
  const customers = await startShopping(client)
  await eventually(async () => assert.ok(finalCount(customers) >= ERRANDS), LIMIT_MS)
  await customers.stop()
  await customers.finishAll(LIMIT_MS)
  return customers
}
const readyAgain = () => replicasReady(replicas, AbortSignal.timeout(LIMIT_MS), () => undefined)

test(
  'requests that existed only in the log are resent to the billing service, and every customer is notified',
  TIMEOUT,
  async () => {
    const customers = await shopToTheEnd()
    await stack.untilInvariantsHold(LIMIT_MS)

    await billing.server.kill()
    const orders = customers.accounts.flatMap((account) => [
      orderOf(account, 'events'),
      orderOf(account, 'events', 2),
    ])
    await Promise.all(orders.map((order) => attemptOnce(client, order)))
    for (const order of orders) assert.equal(finalResponseOf(order)?.kind, 'accepted')
    await eventually(async () => assert.equal(await outboxOf('order'), 0), LIMIT_MS)

    await burn()
    await billing.server.start()
    await readyAgain()
    const errands = [...customers.errands, ...orders]
    await assertPromisesKept(client, customers.accounts, errands, LIMIT_MS)
    await stack.untilInvariantsHold(LIMIT_MS)
    const states = await Promise.all(orders.map(stateOf))
    assert.ok(states.includes('APPROVED') && states.includes('CANCELED'))
  },
)

test(
  'if the data is deleted under load, orders settle, no order is paid twice and no letter is sent twice',
  TIMEOUT,
  async (t) => {
    const customers = await startShopping(client)
    await eventually(async () => assert.ok(finalCount(customers) >= ERRANDS), LIMIT_MS)
    await burn()
    const before = customers.errands.length
    await eventually(async () => assert.ok(finalCount(customers) >= before + ERRANDS), LIMIT_MS)
    await customers.stop()
    await customers.finishAll(LIMIT_MS)
    await readyAgain()
    const { accounts, errands } = customers
    await assertPromisesKept(client, accounts, errands, LIMIT_MS, { messagesMayBeLost: true })
    const lost = await stack.untilInvariantsHold(LIMIT_MS, isOfLostAnnouncement)
    t.diagnostic(`${errands.length} errands; lost with the log: ${lost.map(sentenceOf)}`)
  },
)

test(
  'from the start of the log again, ledger, orders, messages and letters stay',
  TIMEOUT,
  async () => {
    // Reads the remaining log to its end, then adds enough messages to be read again.
    const customers = await shopToTheEnd()
    await eventually(allIsRead, LIMIT_MS)
    await stack.untilInvariantsHold(LIMIT_MS, isOfLostAnnouncement)

    await Promise.all(replicas.map(({ server }) => server.stop()))
    const before = await snapshot()
    await forgetOffsets()
    await Promise.all(replicas.map(({ server }) => server.start()))
    await readyAgain()
    await eventually(async () => {
      await allIsRead()
      for (const replica of replicas) {
        const metrics = (await fetchFromReplica(replica, 'actuator/prometheus')).body
        const handled = metricOf(metrics, 'trifold_consumer_messages_total') ?? 0
        assert.ok(
          handled >= ERRANDS / 2,
          `${replica.service} has read only ${handled} messages again`,
        )
      }
    }, LIMIT_MS)
    await stack.untilInvariantsHold(LIMIT_MS, isOfLostAnnouncement)
    assert.deepEqual(await snapshot(), before)
    const { accounts, errands } = customers
    await assertPromisesKept(client, accounts, errands, LIMIT_MS)
  },
)

/** Kills the broker and deletes its data; then an operator starts it and creates the topics again. */
async function burn(): Promise<void> {
  const data = join(stack.folder, 'kafka', 'data')
  await stack.kafka.kill()
  assert.ok(existsSync(data))
  await rm(data, { recursive: true })
  await stack.kafka.start()
  const sentences = await createTopics(stack.brokers, TOPICS)
  for (const sentence of sentences) assert.match(sentence, /: created with/)
}

/** Sets the position of every group, which must have no members. */
async function forgetOffsets(): Promise<void> {
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: [stack.brokers], retries: 20 })
  try {
    const groups = [...(await admin.listGroups()).keys()]
    assert.equal(groups.length, replicas.length, groups.join())
    await admin.deleteGroups({ groups })
  } finally {
    await admin.close()
  }
}

/**
 * A violation caused by an event that was lost with the log, or that was announced a second time, out of
 * order.
 */
const isOfLostAnnouncement = ({ invariant, sentence }: Violation) =>
  (invariant === 'I5' && sentence.startsWith('was never announced')) || invariant === 'I6'
const sentenceOf = ({ subject, sentence }: Violation) => `${subject} ${sentence}`

async function stateOf(errand: Errand) {
  const final = finalResponseOf(errand)
  assert.ok(final && 'orderId' in final)
  return (await client.getOrder(errand.account, final.orderId, 0)).state
}

async function outboxOf(service: 'order'): Promise<number | undefined> {
  const replica = replicas.find((one) => one.service === service)!
  const { body } = await fetchFromReplica(replica, 'actuator/prometheus')
  return metricOf(body, 'trifold_outbox_rows', 'carrier="broker"')
}

const allIsRead = async () => {
  for (const { service } of replicas) await assertAllRead(client, PATHS[service])
}

/** The state that must not change: a hash of the ledger, and the data that customers can see. */
async function snapshot() {
  const { order, billing: ofBilling, notification } = stack.databaseUrls
  const [ledger, accounts, orders, messages] = await Promise.all([
    rowsOf(ofBilling, 'select * from billing.transfer order by account_id, version'),
    rowsOf(ofBilling, 'select id, balance_minor, version from billing.account order by id'),
    rowsOf(order, 'select id, state, reason from orders.orders order by id'),
    rowsOf(
      notification,
      'select id, event_id, text, created from notification.message order by id',
    ),
  ])
  assert.ok(ledger.length > 0 && messages.length > 0)
  const styles = await rowsOf(order, 'select distinct style from orders.orders order by style')
  assert.deepEqual(
    styles,
    [...STYLES].sort().map((style) => JSON.stringify({ style })),
  )
  const letters = await lettersIn(join(stack.folder, 'mail'))
  assert.ok(letters.length > 0)
  return {
    ledger: createHash('sha256').update(ledger.join('\n')).digest('hex'),
    accounts,
    orders,
    messages,
    letters: letters.map(({ messageId, recipient }) => `${messageId} to ${recipient}`).sort(),
  }
}

async function rowsOf(url: string, sql: string): Promise<string[]> {
  const database = await openPostgres({ url, maxConnections: 1 })
  try {
    const rows = await database.query<Record<string, unknown>>(sql)
    return rows.map((row) =>
      JSON.stringify(row, (_, value) => (typeof value === 'bigint' ? `${value}` : value)),
    )
  } finally {
    await database.close()
  }
}
