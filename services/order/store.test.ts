import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { transact } from '../../platform/database.ts'
import { migrate } from '../../platform/migrate.ts'
import { openTestDatabase } from '../../tests/backends.ts'
import { SCHEMA } from './migrations/001-initial.ts'
import { MIGRATIONS } from './migrations/all-migrations.ts'
import type { OrderState } from './order.ts'
import { changeOrders, findOrders, insertOrders } from './store.ts'

const database = await openTestDatabase()
after(() => database.close())
await migrate(database, SCHEMA, MIGRATIONS)
const now = Date.parse('2026-03-01T10:00:00Z')

async function placed(): Promise<string> {
  const [id, profileId] = [crypto.randomUUID(), crypto.randomUUID()]
  const rest = { productQuantity: 1, priceMinor: 6500n, reason: null, idempotencyKey: null }
  const order = { ...rest, id, profileId, style: 'events', state: 'PENDING' } as const
  await insertOrders(database, [order], { now, askAt: now, deadline: now })
  return id
}

const move = (id: string, from: OrderState, to: OrderState) => ({ id, from, to, reason: null })
const stateOf = async (id: string) => (await findOrders(database, [id])).get(id)?.state

test('of two moves of an order from one state the second is a conflict, with all that goes with it', async () => {
  const [raced, other] = [await placed(), await placed()]
  await changeOrders(database, [move(raced, 'PENDING', 'APPROVED')], now)
  const late = database.transaction(async (tx) => {
    const moves = [move(other, 'PENDING', 'CANCELED'), move(raced, 'PENDING', 'CANCELED')]
    await changeOrders(tx, moves, now)
  })
  await assert.rejects(late, { name: 'DatabaseError', kind: 'conflict' })
  assert.deepEqual([await stateOf(raced), await stateOf(other)], ['APPROVED', 'PENDING'])
})

test('who lost the race reads again, and decides again', async () => {
  const id = await placed()
  let tries = 0
  await transact(database, async (tx) => {
    tries += 1
    const state = (await findOrders(tx, [id])).get(id)!.state
    await changeOrders(tx, [move(id, tries === 1 ? 'APPROVED' : state, 'CANCELED')], now)
  })
  assert.deepEqual([tries, await stateOf(id)], [2, 'CANCELED'])
})
