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

test('an order is not asked for again while its last request still waits in the outbox', async () => {
  let now = Date.now()
  await database.transaction((tx) => place(tx, 1, now))

  /** What a look does after so long: returns how many orders it asked for. */
  const lookAfter = async (waitMs: number) => {
    now += waitMs
    return await database.transaction(async (tx) => {
      const due = await takeOrdersToResend(tx, now, SCHEDULE)
      const asked = due.filter(({ isInOutbox }) => !isInOutbox)
      const messages = asked.map((one) => route('requestPayment', one.order, null, now))
      await outbox.enqueue(tx, messages)
      return asked.length
    })
  }
  const deliverAll = async () => {
    const rows = await outbox.takeForBroker(database, [], [], ALL_LANES, 10)
    const ids = rows.map(({ id }) => id)
    await outbox.takeForBroker(database, ids, [], [], 10)
    return rows.length
  }

  // Its first request was delivered and is lost; the second one meets a broker that is away.
  assert.equal(await lookAfter(RESEND_AFTER_MS - 1), 0)
  assert.equal(await lookAfter(1), 1)
  for (let minutes = 0; minutes < 5; minutes += 1) assert.equal(await lookAfter(60_000), 0)
  assert.equal(await deliverAll(), 1)
  assert.equal(await lookAfter(60_000), 1)
  assert.equal(await deliverAll(), 1)
})

test('of many orders that wait only those that are due are read, planned when there were few', async () => {
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

test('with RESEND=false nothing is repeated, and attempts are counted all the same', async () => {
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

  // A later order of the account follows everything that was sent before.
  const laterId = await place()
  const said = () => wire.of(accountId).map(({ body }) => `${body.event} ${body.orderId}`)
  await until(() => said().includes(`ORDER_CREATED ${laterId}`))
  assert.deepEqual(said(), [
    `ORDER_CREATED ${orderId}`,
    `ORDER_CANCELED ${orderId}`,
    `ORDER_CREATED ${laterId}`,
  ])
})
