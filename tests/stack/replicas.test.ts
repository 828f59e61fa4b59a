import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { STYLES } from '../../contracts/style.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { type Replica, replicasReady } from '../../tools/stack/services.ts'
import { eventually } from '../e2e/client.ts'
import { type Account, depositOf, orderOf } from './customers.ts'
import { type Errand, finalResponseOf, finish } from './errands.ts'
import { fetchFromReplica, metricOf, type OwnStack, startOwnStack } from './own-stack.ts'
import { assertPromisesKept } from './promises.ts'

// REPLICAS_ORDERS sets the number of orders, for a slower machine or a longer run.
const ORDERS = Number(process.env.REPLICAS_ORDERS ?? 5_000)
const ACCOUNTS = 200
const FUNDS = 100_000
const CUSTOMERS = 32
/** Number of orders per deposit. */
const DEPOSIT_EVERY = 25
/** How long a customer waits before repeating a request. A frozen replica keeps its requests. */
const PATIENCE_MS = 8_000
/** Longer than the session timeout of the consumer groups and the leases of the lanes, both 10 s. */
const FROZEN_MS = 15_000
const FINAL_LIMIT_MS = 120_000
const READY_LIMIT_MS = 60_000
const SETTLE_LIMIT_MS = 90_000
/** The minimum share of its service's work that each replica must do. With evenly spread keys, shares would be equal. */
const FAIR_PART = 0.15
const LANES = 8

test(`two replicas each: ${ORDERS} orders settle while one of each is killed and one frozen`, {
  timeout: 600_000,
}, async (t) => {
  const stack = await startOwnStack({ order: 2, billing: 2, notification: 2 })
  t.after(() => stack.close())
  await workIsShared(stack, 2)
  const accounts = await openAccounts(stack, ACCOUNTS)
  const calm = errandsOf(accounts, ORDERS * 0.3, 0)
  const rough = errandsOf(accounts, ORDERS * 0.7, calm.length)
  const number = (wanted: number) => stack.replicas.filter((one) => one.number === wanted)

  const startedMs = performance.now()
  const before = await workOf(stack.replicas)
  await runErrands(stack, calm).over
  await assertWorkShared(stack.replicas, before, t)
  const calmMs = performance.now() - startedMs

  const errands = [...calm, ...rough]
  const run = runErrands(stack, rough)
  await run.reached(0.2)
  await Promise.all(number(1).map(({ server }) => server.kill()))
  await run.reached(0.5)
  await Promise.all(number(1).map(({ server }) => server.start()))
  await replicasReady(number(1), AbortSignal.timeout(READY_LIMIT_MS), () => undefined)
  const frozen = number(2).find(({ service }) => service === 'billing')!
  await frozen.server.freeze()
  await sleep(FROZEN_MS)
  await frozen.server.thaw()
  await run.over
  t.diagnostic(`${calm.length} errands in calm took ${Math.round(calmMs)} ms`)
  t.diagnostic(
    `all errands had final responses after ${Math.round(performance.now() - startedMs)} ms`,
  )
  await assertAllSettled(stack, accounts, errands, t)
})

test('three replicas each: one of each that is frozen for longer than its session does no harm when it resumes', {
  timeout: 400_000,
}, async (t) => {
  const stack = await startOwnStack({ order: 3, billing: 3, notification: 3 })
  t.after(() => stack.close())
  await workIsShared(stack, 3)
  const accounts = await openAccounts(stack, ACCOUNTS)
  const errands = errandsOf(accounts, ORDERS * 0.2, 0)
  const paused = stack.replicas.filter(({ number }) => number === 3)
  const run = runErrands(stack, errands)
  await run.reached(0.3)
  await Promise.all(paused.map(({ server }) => server.freeze()))
  await sleep(FROZEN_MS)
  await Promise.all(paused.map(({ server }) => server.thaw()))
  await run.over

  await workIsShared(stack, 3)
  const before = await workOf(stack.replicas)
  const later = errandsOf(accounts, ORDERS * 0.2, errands.length)
  await runErrands(stack, later).over
  await assertAllSettled(stack, accounts, [...errands, ...later], t)
  await assertWorkShared(stack.replicas, before, t)
})

async function openAccounts({ client }: OwnStack, count: number): Promise<Account[]> {
  const accounts: Account[] = []
  await inParallel(
    Array.from({ length: count }, (_, nth) => nth),
    async () => {
      accounts.push({ id: await client.fundedAccount(FUNDS), funds: FUNDS })
    },
  )
  return accounts
}

/** ORDERS orders in all styles, alternating between the accounts, with deposits in between. */
function errandsOf(accounts: readonly Account[], orders: number, from: number): Errand[] {
  return Array.from({ length: orders }, (_, index) => {
    const nth = from + index
    const account = accounts[nth % accounts.length]!
    const order = orderOf(account, STYLES[nth % STYLES.length]!)
    // The response comes when the deposit is booked, so its balance must be in the ledger.
    const style = nth % 2 === 0 ? 'http' : 'hybrid'
    return nth % DEPOSIT_EVERY === 0 ? [depositOf(account, style, nth), order] : [order]
  }).flat()
}

/**
 * Runs the errands with concurrent customers, each doing one errand after another, until all errands have
 * final responses.
 */
function runErrands({ client }: OwnStack, errands: readonly Errand[]) {
  const limits = { limitMs: FINAL_LIMIT_MS, patienceMs: PATIENCE_MS }
  const over = inParallel(errands, (errand) => finish(client, errand, limits))
  // The failure is reported when it is awaited.
  over.catch(() => undefined)
  return {
    over,
    async reached(part: number): Promise<void> {
      const isReached = eventually(async () => {
        assert.ok(errands.filter(finalResponseOf).length >= errands.length * part)
      }, FINAL_LIMIT_MS)
      await Promise.race([isReached, over])
    },
  }
}

async function inParallel<Item>(items: readonly Item[], work: (item: Item) => Promise<void>) {
  const rest = items.values()
  const worker = async () => {
    for (const item of rest) await work(item)
  }
  await Promise.all(Array.from({ length: CUSTOMERS }, worker))
}

/** Resolves when every replica has partitions and, if its service sends to the broker, lanes. */
async function workIsShared(stack: OwnStack, count: number): Promise<void> {
  await lanesAreShared(stack, count)
  await eventually(async () => {
    for (const replica of stack.replicas) {
      const { body } = await fetchFromReplica(replica, 'actuator/prometheus')
      const { service, number } = replica
      const lag = metricOf(body, 'trifold_consumer_lag_messages')
      assert.notEqual(lag, undefined, `${service} ${number} reads no partition`)
    }
  }, READY_LIMIT_MS)
}

async function lanesAreShared({ databaseUrls }: OwnStack, count: number): Promise<void> {
  for (const [service, schema] of [
    ['order', 'orders'],
    ['billing', 'billing'],
  ] as const) {
    const database = await openPostgres({ url: databaseUrls[service], maxConnections: 1 })
    try {
      await eventually(async () => {
        const held = await database.query<{ lanes: number }>(
          `select count(*)::integer as lanes from ${schema}.relay_lane
           where holder is not null group by holder`,
        )
        assert.equal(held.length, count)
        assert.ok(held.every(({ lanes }) => lanes >= Math.floor(LANES / count) - 1))
      }, READY_LIMIT_MS)
    } finally {
      await database.close()
    }
  }
}

type Work = Readonly<Record<'messages' | 'rows', number>>

/** The work of each replica since its start. */
async function workOf(replicas: readonly Replica[]): Promise<Map<Replica, Work>> {
  const works = replicas.map(async (replica) => {
    const { body } = await fetchFromReplica(replica, 'actuator/prometheus')
    const messages = metricOf(body, 'trifold_consumer_messages_total') ?? 0
    const carrier = 'carrier="broker"'
    const rows = metricOf(body, 'trifold_outbox_delivered_total', carrier) ?? 0
    return [replica, { messages, rows }] as const
  })
  return new Map(await Promise.all(works))
}

/**
 * Every replica of a service did its share of the work. The notification service sends nothing to the broker.
 */
async function assertWorkShared(
  replicas: readonly Replica[],
  before: ReadonlyMap<Replica, Work>,
  t: { diagnostic(line: string): void },
): Promise<void> {
  const after = await workOf(replicas)
  for (const kind of ['messages', 'rows'] as const) {
    for (const [service, own] of Map.groupBy(replicas, (replica) => replica.service)) {
      if (kind === 'rows' && service === 'notification') continue
      const done = own.map((replica) => after.get(replica)![kind] - before.get(replica)![kind])
      const sum = done.reduce((total, one) => total + one)
      t.diagnostic(`${kind} of ${service}: ${done.join(', ')}`)
      assert.ok(
        done.every((one) => one >= sum * FAIR_PART),
        `${kind} of ${service}: ${done}`,
      )
    }
  }
}

/** Includes I6: notices are in the order of the ledgers. */
async function assertAllSettled(
  stack: OwnStack,
  accounts: readonly Account[],
  errands: readonly Errand[],
  t: { diagnostic(line: string): void },
): Promise<void> {
  const startedMs = performance.now()
  await assertPromisesKept(stack.client, accounts, errands, SETTLE_LIMIT_MS)
  await stack.untilInvariantsHold(SETTLE_LIMIT_MS)
  t.diagnostic(`all settled and audited after ${Math.round(performance.now() - startedMs)} ms`)
  const attempts = errands.flatMap((errand) => errand.attempts)
  const count = (status: number | undefined) =>
    attempts.filter(({ response }) => response?.status === status).length
  const waits = attempts.map(({ startedMs, endedMs }) => endedMs - startedMs).sort((a, b) => a - b)
  const slow = waits.filter((ms) => ms > 1_000).length
  t.diagnostic(
    `${errands.length} errands in ${attempts.length} requests: ${count(503)} rejected, ${count(409)} in ` +
      `flight, ${count(undefined)} without a response; ${slow} took over 1 s, the slowest ` +
      `${Math.round(waits.at(-1) ?? 0)} ms`,
  )
}
