import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { createOutbox, LANES } from '../../messaging/outbox/outbox.ts'
import { until } from '../../platform/async/until.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { openTestDatabase } from '../../tests/support/backends.ts'
import { POLL_MS, startOrder, VOID_ATTEMPTS } from '../../tests/support/order-service.ts'
import { SCHEMA } from './migrations/001-initial.ts'
import { MIGRATIONS } from './migrations/all-migrations.ts'
import type { Order } from './order.ts'
import { route } from './routing.ts'
import { insertOrders, type ResendSchedule, takeOrdersToResend } from './store.ts'

const RESEND_AFTER_MS = 5_000
const SCHEDULE: ResendSchedule = {
  afterMs: RESEND_AFTER_MS,
  maxAfterMs: 60_000,
  stuckAfter: 10,
  limit: 10,
}
const ALL_LANES = Array.from({ length: LANES }, (_, lane) => lane)

const database = await openTestDatabase()
await migrate(database, SCHEMA, MIGRATIONS)
after(() => database.close())
const outbox = createOutbox(SCHEMA)

const newOrder = (): Order => ({
  id: crypto.randomUUID(),
  profileId: crypto.randomUUID(),
  productQuantity: 1,
  priceMinor: 6_500n,
  style: 'events',
  state: 'PENDING',
  reason: null,
  idempotencyKey: null,
})
const place = (tx: Queryable, orders: number, now: number) => {
  const times = { now, resendAt: now + RESEND_AFTER_MS, deadline: now + 900_000 }
  return insertOrders(tx, Array.from({ length: orders }, newOrder), times)
}

test('an order is not resent while its last request is still in the outbox', async () => {
  // Far ahead of the database's clock, which sets the times of outbox rows, so that this time stays ahead
  // even in a slow run.
  let now = Date.now() + 60_000
  await database.transaction((tx) => place(tx, 1, now))

  /** Polls after a wait, and returns how many orders had their requests resent. */
  const pollAfter = async (waitMs: number) => {
    now += waitMs
    return await database.transaction(async (tx) => {
      const due = await takeOrdersToResend(tx, now, SCHEDULE)
      const resent = due.filter(({ isInOutbox }) => !isInOutbox)
      const messages = resent.map((one) => route('requestPayment', one.order, null, now))
      await outbox.enqueue(tx, messages)
      return resent.length
    })
  }
  const deliverAll = async () => {
    const rows = await outbox.takeForBroker(database, [], [], ALL_LANES, 10)
    const ids = rows.map(({ id }) => id)
    await outbox.takeForBroker(database, ids, [], [], 10)
    return rows.length
  }

  // The first request was delivered and then lost. The second request stays in the outbox, as if the broker
  // were down.
  assert.equal(await pollAfter(RESEND_AFTER_MS - 1), 0)
  assert.equal(await pollAfter(1), 1)
  for (let minutes = 0; minutes < 5; minutes += 1) assert.equal(await pollAfter(60_000), 0)
  assert.equal(await deliverAll(), 1)
  assert.equal(await pollAfter(60_000), 1)
  assert.equal(await deliverAll(), 1)
})

test('only due orders are read, even if the statement was planned while there were few orders', async () => {
  const now = Date.now()
  const limit = 20
  const take = (tx: Queryable, at: number) => takeOrdersToResend(tx, at, { ...SCHEDULE, limit })
  const readOf = async (tx: Queryable) => {
    const [row] = await tx.query<{ rows: bigint }>(
      `select pg_stat_get_xact_tuples_fetched('orders.orders_pkey'::regclass)
         + pg_stat_get_xact_tuples_fetched('orders.watch_pkey'::regclass) as rows`,
    )
    return row!.rows
  }
  await database.transaction((tx) => place(tx, 50, now))
  await database.transaction(async (tx) => {
    for (let tries = 0; tries < 10; tries += 1) await take(tx, now)
    await place(tx, 2_000, now)
    const before = await readOf(tx)
    assert.equal((await take(tx, now + RESEND_AFTER_MS)).length, limit)
    assert.equal((await readOf(tx)) - before, 2n * BigInt(limit))
  })
})

test('with RESEND=false nothing is resent, but attempts are counted', async () => {
  const { clock, wire, call } = await startOrder({ status: 200, body: 'paid' }, ['billing'], {
    RESEND: false,
  })
  const accountId = crypto.randomUUID()
  const place = async (): Promise<string> =>
    (await call('POST', `/orders?profileId=${accountId}`, { body: { productQuantity: 1 } })).body
  const attemptsReach = (orderId: string, attempts: number) =>
    until(async () => {
      clock.advance(POLL_MS)
      const { body } = await call('GET', '/orders/pending')
      const order = body.find(({ id }: { id: string }) => id === orderId)
      return order.attempts >= attempts && order
    })

  const orderId = await place()
  await attemptsReach(orderId, 3)
  await call('DELETE', `/orders/${orderId}?profileId=${accountId}`)
  const { stuck, waitsFor } = await attemptsReach(orderId, VOID_ATTEMPTS)
  assert.deepEqual([stuck, waitsFor], [true, 'void'])

  // The request of a later order of the same account follows everything that was sent earlier.
  const laterId = await place()
  const sent = () => wire.of(accountId).map(({ body }) => `${body.event} ${body.orderId}`)
  await until(() => sent().includes(`ORDER_CREATED ${laterId}`))
  assert.deepEqual(sent(), [
    `ORDER_CREATED ${orderId}`,
    `ORDER_CANCELED ${orderId}`,
    `ORDER_CREATED ${laterId}`,
  ])
})
