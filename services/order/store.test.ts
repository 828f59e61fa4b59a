import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { Queryable } from '../../platform/database/database.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { openTestDatabase } from '../../tests/support/backends.ts'
import { SCHEMA } from './migrations/001-initial.ts'
import { MIGRATIONS } from './migrations/all-migrations.ts'
import type { OrderState } from './order.ts'
import { changeOrders, findOrders, insertOrders, lockOrders } from './store.ts'

const database = await openTestDatabase()
after(() => database.close())
await migrate(database, SCHEMA, MIGRATIONS)
const now = Date.parse('2026-03-01T10:00:00Z')

async function placed(): Promise<string> {
  const [id, profileId] = [crypto.randomUUID(), crypto.randomUUID()]
  const rest = { productQuantity: 1, priceMinor: 6500n, reason: null, idempotencyKey: null }
  const order = { ...rest, id, profileId, style: 'events', state: 'PENDING' } as const
  await insertOrders(database, [order], { now, resendAt: now, deadline: now })
  return id
}

test('a transaction that locks an order waits for the one that locked it before, and sees its change', async () => {
  const id = await placed()
  const stateFor = async (tx: Queryable) => (await lockOrders(tx, [id])).get(id)!.state
  let second: Promise<OrderState> | undefined
  await database.transaction(async (tx) => {
    assert.equal(await stateFor(tx), 'PENDING')
    second = database.transaction(stateFor)
    await changeOrders(tx, [{ id, to: 'APPROVED', reason: null }], now)
  })
  assert.equal(await second, 'APPROVED')
})

test('an order that is settled leaves the table watch, and no other order does', async () => {
  const [id, other] = [await placed(), await placed()]
  await changeOrders(database, [{ id, to: 'CANCELED', reason: 'DELETED' }], now)
  const watched = await database.query<{ order_id: string }>(
    'select order_id from orders.watch where order_id = any($1::uuid[])',
    [[id, other]],
  )
  assert.deepEqual(watched, [{ order_id: other }])
  const { state, reason } = (await findOrders(database, [id])).get(id)!
  assert.deepEqual({ state, reason }, { state: 'CANCELED', reason: 'DELETED' })
})
