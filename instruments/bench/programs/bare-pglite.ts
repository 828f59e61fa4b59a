import { systemRuntime } from '../../../platform/async/runtime.ts'
import { migrate } from '../../../platform/database/migrate.ts'
import { openPglite } from '../../../platform/pglite/pglite.ts'
import { MIGRATIONS as BILLING } from '../../../services/billing/migrations/all-migrations.ts'
import { MIGRATIONS as NOTIFICATION } from '../../../services/notification/migrations/all-migrations.ts'
import { MIGRATIONS as ORDERS } from '../../../services/order/migrations/all-migrations.ts'
import { accountIds } from '../books.ts'
import { runTasks } from '../measured-process.ts'
import { recordOrder } from './recording.ts'
import { newOrder, replay } from './replay.ts'

/**
 * PGlite on disk, executing only the statements of the services, without HTTP, bus or events. The statements
 * are prepared once, as in the all-in-one program. The tables keep their rows from task to task.
 */
export interface BarePgliteTask {
  readonly folder: string
  readonly accounts: number
  readonly seconds: number
}

/** Opens the database. `run` returns orders per second, with four transactions each. */
async function open({ folder, accounts }: BarePgliteTask) {
  const recording = await recordOrder('events')
  const database = await openPglite({ folder })
  await migrate(database, 'orders', ORDERS)
  await migrate(database, 'billing', BILLING)
  await migrate(database, 'notification', NOTIFICATION)
  const ids = accountIds(accounts)
  await database.query(
    `insert into billing.account (id, balance_minor, version, pending_minor, created, updated)
     select id, 10000000000000, 1, 0, now(), now() from unnest($1::uuid[]) as a (id)`,
    [ids],
  )
  return {
    async run(seconds: number): Promise<number> {
      const startedMs = performance.now()
      const untilMs = startedMs + seconds * 1_000
      let orders = 0
      while (performance.now() < untilMs) {
        const order = newOrder(recording, ids[orders % accounts]!, systemRuntime.uuid)
        for (const statements of recording.transactions) {
          await database.transaction((tx) => replay(tx, statements, recording, order))
        }
        orders += 1
      }
      return (orders * 1_000) / (performance.now() - startedMs)
    },
  }
}

let opened: ReturnType<typeof open> | undefined
runTasks(async (task: BarePgliteTask) => {
  opened ??= open(task)
  const pglite = await opened
  return await pglite.run(task.seconds)
})
