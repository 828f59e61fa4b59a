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
import { beginShopping, type Customers, orderOf } from './customers.ts'
import { type Errand, toldOf, tryOnce } from './errands.ts'
import { askReplica, metricOf, startOwnStack } from './own-stack.ts'
import { assertPromisesKept } from './promises.ts'

/**
 * The broker keeps nothing that the services cannot do without. Its data are deleted under them, and
 * it is told to begin from the start of its log again: money moves once, and letters are sent once.
 */
const ERRANDS = 60
const LIMIT_MS = 120_000
const TIMEOUT = { timeout: 500_000 }

const stack = await startOwnStack({ order: 1, billing: 1, notification: 1 })
after(() => stack.close())
const { client, replicas } = stack
const billing = replicas.find(({ service }) => service === 'billing')!

const toldCount = ({ errands }: Customers) => errands.filter(toldOf).length
async function shopToTheEnd(): Promise<Customers> {
  const customers = await beginShopping(client)
  await eventually(async () => assert.ok(toldCount(customers) >= ERRANDS), LIMIT_MS)
  await customers.stop()
  await customers.insist(LIMIT_MS)
  return customers
}
const readyAgain = () => replicasReady(replicas, AbortSignal.timeout(LIMIT_MS), () => undefined)

test(
  'what only the log held for billing is asked for again, and every customer hears of it',
  TIMEOUT,
  async () => {
    const customers = await shopToTheEnd()
    await stack.untilInvariantsHold(LIMIT_MS)

    await billing.server.kill()
    const orders = customers.accounts.flatMap((account) => [
      orderOf(account, 'events'),
      orderOf(account, 'events', 2),
    ])
    await Promise.all(orders.map((order) => tryOnce(client, order)))
    for (const order of orders) assert.equal(toldOf(order)?.kind, 'accepted')
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
  'burnt in full swing, orders settle, nothing is paid twice and no letter sent twice',
  TIMEOUT,
  async (t) => {
    const customers = await beginShopping(client)
    await eventually(async () => assert.ok(toldCount(customers) >= ERRANDS), LIMIT_MS)
    await burn()
    const before = customers.errands.length
    await eventually(async () => assert.ok(toldCount(customers) >= before + ERRANDS), LIMIT_MS)
    await customers.stop()
    await customers.insist(LIMIT_MS)
    await readyAgain()
    const { accounts, errands } = customers
    await assertPromisesKept(client, accounts, errands, LIMIT_MS, { messagesMayBeLost: true })
    const lost = await stack.untilInvariantsHold(LIMIT_MS, isOfLostAnnouncement)
    t.diagnostic(`${errands.length} errands; with the log were lost: ${lost.map(sentenceOf)}`)
  },
)

test(
  'from the start of the log again, ledger, orders, messages and letters stay',
  TIMEOUT,
  async () => {
    // What the fires left is read to its end, and then there is enough that is read twice.
    const customers = await shopToTheEnd()
    await eventually(allIsRead, LIMIT_MS)
    await stack.untilInvariantsHold(LIMIT_MS, isOfLostAnnouncement)

    await Promise.all(replicas.map(({ server }) => server.stop()))
    const before = await booksOf()
    await forgetOffsets()
    await Promise.all(replicas.map(({ server }) => server.start()))
    await readyAgain()
    await eventually(async () => {
      await allIsRead()
      for (const replica of replicas) {
        const metrics = (await askReplica(replica, 'actuator/prometheus')).body
        const handled = metricOf(metrics, 'trifold_consumer_messages_total') ?? 0
        assert.ok(handled >= ERRANDS / 2, `${replica.service} has read ${handled} messages again`)
      }
    }, LIMIT_MS)
    await stack.untilInvariantsHold(LIMIT_MS, isOfLostAnnouncement)
    assert.deepEqual(await booksOf(), before)
    const { accounts, errands } = customers
    await assertPromisesKept(client, accounts, errands, LIMIT_MS)
  },
)

/** Killed, deleted, and begun anew by an operator who makes the topics again. */
async function burn(): Promise<void> {
  const data = join(stack.folder, 'kafka', 'data')
  await stack.kafka.kill()
  assert.ok(existsSync(data))
  await rm(data, { recursive: true })
  await stack.kafka.start()
  const sentences = await createTopics(stack.brokers, TOPICS)
  for (const sentence of sentences) assert.match(sentence, /: created with/)
}

/** The position of every group; no member may be there. */
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

/** An event that was in the log alone when it burned; what is announced again comes later than it did. */
const isOfLostAnnouncement = ({ invariant, sentence }: Violation) =>
  (invariant === 'I5' && sentence.startsWith('was never announced')) || invariant === 'I6'
const sentenceOf = ({ subject, sentence }: Violation) => `${subject} ${sentence}`

async function stateOf(errand: Errand) {
  const told = toldOf(errand)
  assert.ok(told && 'orderId' in told)
  return (await client.getOrder(errand.account, told.orderId, 0)).state
}

async function outboxOf(service: 'order'): Promise<number | undefined> {
  const replica = replicas.find((one) => one.service === service)!
  const { body } = await askReplica(replica, 'actuator/prometheus')
  return metricOf(body, 'trifold_outbox_rows', 'carrier="broker"')
}

const allIsRead = async () => {
  for (const { service } of replicas) await assertAllRead(client, PATHS[service])
}

/** What must be the same afterwards: a hash of the ledger, and what customers see. */
async function booksOf() {
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
    ...{ accounts, orders, messages },
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
