import assert from 'node:assert/strict'
import { test } from 'node:test'
import { until } from '../../platform/async/until.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { replicasReady } from '../../tools/stack/services.ts'
import { orderOf } from './customers.ts'
import { finish } from './errands.ts'
import { startOwnStack } from './own-stack.ts'
import { assertPromisesKept } from './promises.ts'

const ORDERS = 1_000
const ACCOUNTS = 50
const FUNDS = 100_000
const CUSTOMERS = 64
const READY_LIMIT_MS = 30_000
const SETTLE_LIMIT_MS = 60_000
/** The session of the killed member and the lease of its lanes end after 10 s. */
const SETTLED_AFTER_READY_MS = 3_000

test(`${ORDERS} orders settle within 3 s once a killed billing service is ready again`, {
  timeout: 240_000,
}, async (t) => {
  const stack = await startOwnStack({ order: 1, billing: 1, notification: 1 })
  t.after(() => stack.close())
  const { client } = stack
  const orders = await openPostgres({ url: stack.databaseUrls.order, maxConnections: 1 })
  t.after(() => orders.close())
  const funded = Array.from({ length: ACCOUNTS }, () => client.fundedAccount(FUNDS))
  const accounts = (await Promise.all(funded)).map((id) => ({ id, funds: FUNDS }))
  const errands = Array.from({ length: ORDERS }, (_, nth) =>
    orderOf(accounts[nth % ACCOUNTS]!, 'events'),
  )
  const billing = stack.replicas.find(({ service }) => service === 'billing')!

  const due = errands.values()
  const customer = async () => {
    for (const errand of due) await finish(client, errand, { limitMs: SETTLE_LIMIT_MS })
  }
  const all = Promise.all(Array.from({ length: CUSTOMERS }, customer))
  const countOf = async (state: string) => {
    const rows = await orders.query<{ count: number }>(
      'select count(*)::integer as count from orders.orders where state = $1',
      [state],
    )
    return rows[0]!.count
  }
  // Kills the billing service in the middle of its work: it holds partitions and lanes, and some orders are
  // settled, others not.
  await until(async () => (await countOf('APPROVED')) > 0, { limitMs: SETTLE_LIMIT_MS })
  await billing.server.kill()
  const killedMs = performance.now()
  await billing.server.start()
  await replicasReady([billing], AbortSignal.timeout(READY_LIMIT_MS), () => undefined)
  const readyMs = performance.now()
  await all
  await until(async () => (await countOf('PENDING')) === 0, { limitMs: SETTLE_LIMIT_MS })
  const tookMs = Math.round(performance.now() - readyMs)
  t.diagnostic(`billing was ready ${Math.round(readyMs - killedMs)} ms after it was killed`)
  t.diagnostic(`all orders were settled ${tookMs} ms after billing was ready`)
  await assertPromisesKept(client, accounts, errands, SETTLE_LIMIT_MS)
  await stack.untilInvariantsHold(SETTLE_LIMIT_MS)
  assert.ok(tookMs < SETTLED_AFTER_READY_MS, `all orders were settled after ${tookMs} ms`)
})
