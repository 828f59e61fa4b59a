import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemRuntime } from '../../../platform/async/runtime.ts'
import { migrate } from '../../../platform/database/migrate.ts'
import { openPglite } from '../../../platform/pglite/pglite.ts'
import { MIGRATIONS as BILLING } from '../../../services/billing/migrations/all-migrations.ts'
import { MIGRATIONS as NOTIFICATION } from '../../../services/notification/migrations/all-migrations.ts'
import { MIGRATIONS as ORDERS } from '../../../services/order/migrations/all-migrations.ts'
import { accountId } from '../books.ts'
import { recordOrder } from './recording.ts'
import { newOrder, replay } from './replay.ts'

test('replayed orders leave the same rows as the services: each paid, approved and notified once', async () => {
  const recording = await recordOrder('events')
  const database = await openPglite()
  await migrate(database, 'orders', ORDERS)
  await migrate(database, 'billing', BILLING)
  await migrate(database, 'notification', NOTIFICATION)
  await database.query(
    `insert into billing.account (id, balance_minor, version, pending_minor, created, updated)
     values ($1, 100000, 1, 0, now(), now())`,
    [accountId(1)],
  )
  for (let orders = 0; orders < 3; orders += 1) {
    const order = newOrder(recording, accountId(1), systemRuntime.uuid)
    for (const statements of recording.transactions) {
      await database.transaction((tx) => replay(tx, statements, recording, order))
    }
  }
  const read = async (statement: string) => (await database.query(statement))[0]
  assert.deepEqual(await read('select balance_minor, version from billing.account'), {
    balance_minor: 100_000n - 3n * 6_500n,
    version: 4,
  })
  const orders = `select count(*) as orders, count(distinct p.id) as payments, count(distinct m.id) as messages
    from orders.orders o join billing.payment p on p.order_id = o.id
    join notification.message m on m.event_id = o.id || '/ORDER_PAID'
    where o.state = 'APPROVED' and p.state = 'PAID'`
  assert.deepEqual(await read(orders), { orders: 3n, payments: 3n, messages: 3n })
  const transfers = `select array_agg(balance_after_minor order by version) as balances from billing.transfer`
  assert.deepEqual(await read(transfers), { balances: [93_500n, 87_000n, 80_500n] })
  await database.close()
})
