import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { openTestDatabase } from '../../tests/support/backends.ts'
import { SCHEMA } from './migrations/001-initial.ts'
import { MIGRATIONS } from './migrations/all-migrations.ts'
import type { Order } from './order.ts'
import { createOutcomes } from './outcomes.ts'
import { changeOrders, findOrders, insertOrders } from './store.ts'

const LIMIT_MS = 10_000
const database = await openTestDatabase()
await migrate(database, SCHEMA, MIGRATIONS)
const parts = { database, runtime: systemRuntime, log: createLog('silent', 'order') }
const [first, second] = [0, 1].map(() =>
  createOutcomes({ ...parts, soleProcess: false, hasPeers: () => true }),
) as [ReturnType<typeof createOutcomes>, ReturnType<typeof createOutcomes>]
after(async () => {
  first.close()
  second.close()
  await database.close()
})

async function place(): Promise<string> {
  const now = Date.now()
  const id = crypto.randomUUID()
  const order: Order = {
    id,
    profileId: crypto.randomUUID(),
    productQuantity: 1,
    priceMinor: 6500n,
    style: 'http',
    state: 'PENDING',
    reason: null,
    idempotencyKey: null,
  }
  await insertOrders(database, [order], { now, resendAt: now, deadline: now })
  return id
}

async function approve(id: string) {
  await changeOrders(database, [{ id, to: 'APPROVED', reason: null }], Date.now())
  return [...(await findOrders(database, [id])).values()]
}

describe('a request that waits for the outcome of an order', () => {
  for (const [where, settler] of [
    ['this instance', first],
    ['another instance', second],
  ] as const) {
    test(`gets it when ${where} settles the order`, async () => {
      const id = await place()
      const waiter = first.wait(id)
      settler.settled(await approve(id))
      assert.equal((await waiter.within(LIMIT_MS))?.state, 'APPROVED')
    })
  }

  test('keeps waiting while other orders are settled elsewhere', async () => {
    const [mine, other] = [await place(), await place()]
    const waiter = first.wait(mine)
    const otherWaiter = first.wait(other)
    second.settled(await approve(other))
    assert.equal((await otherWaiter.within(LIMIT_MS))?.id, other)
    assert.equal(await waiter.within(1), undefined)
  })
})

describe('an order that was placed at this instance', () => {
  const lone = () => createOutcomes({ ...parts, soleProcess: false, hasPeers: () => false })

  test('is known to be PENDING without reading the database until it is settled, and only for its owner', async () => {
    const outcomes = lone()
    const [id, profileId] = [await place(), crypto.randomUUID()]
    assert.equal(outcomes.isPending(id, profileId), false)
    outcomes.placed([{ id, profileId }])
    assert.equal(outcomes.isPending(id, profileId), true)
    assert.equal(outcomes.isPending(id, crypto.randomUUID()), false)
    outcomes.settled(await approve(id))
    assert.equal(outcomes.isPending(id, profileId), false)
    outcomes.close()
  })

  test('is read from the database if other instances may have settled it', () => {
    const order = { id: crypto.randomUUID(), profileId: crypto.randomUUID() }
    first.placed([order])
    assert.equal(first.isPending(order.id, order.profileId), false)
  })

  test('is forgotten once ten thousand orders have been placed after it', () => {
    const outcomes = lone()
    const orders = Array.from({ length: 10_001 }, () => ({
      id: crypto.randomUUID(),
      profileId: '',
    }))
    outcomes.placed(orders)
    assert.equal(outcomes.isPending(orders[0]!.id, ''), false)
    assert.equal(outcomes.isPending(orders[1]!.id, ''), true)
    outcomes.close()
  })
})
