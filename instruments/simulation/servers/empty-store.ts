import { PGlite } from '@electric-sql/pglite'
import type { ServiceParts } from '../../../chassis/service.ts'
import { LANES } from '../../../messaging/outbox/outbox.ts'
import { DatabaseError, type Queryable } from '../../../platform/database/database.ts'
import { pgliteClock } from '../../../platform/pglite/clock.ts'
import { freshCluster } from '../../../platform/pglite/cluster.ts'
import { createSession, type Session } from '../../../platform/pglite/session.ts'
import { createService } from '../world/deployment.ts'
import { never, SERVICES, type ServiceName } from '../world/lives.ts'
import { inertParts } from '../world/parts.ts'
import { START_MS } from '../world/scheduler.ts'
import { DATABASE_TRIGGERS } from './database-triggers.ts'

/** The database that all runs of a worker share. */
export interface Store {
  readonly session: Session
  /** Sets the database's clock; `now` returns epoch milliseconds. */
  useClock(now: () => number): void
  /** Restores the state before the first run. */
  reset(): Promise<void>
  close(): Promise<void>
}

/**
 * Opens a database with the services' schemas, whose reset truncates the tables. That leaves no trace of the
 * previous run, because truncated tables are new files and every statement is planned again, but it is slow; so it
 * is used only for few runs, such as those that collect the statements for `openStore`.
 */
export async function openEmptyStore(): Promise<Store & { readonly pglite: PGlite }> {
  const settings = [
    ...['timezone=UTC', 'plan_cache_mode=force_generic_plan', 'fsync=off'],
    ...['synchronous_commit=off', 'full_page_writes=off', 'shared_buffers=8MB'],
  ]
  let clock = () => START_MS
  const pglite = await PGlite.create({
    extensions: { clock: pgliteClock(() => clock()) },
    loadDataDir: new Blob([await freshCluster()]),
    startParams: [...PGlite.defaultStartParams, ...settings.flatMap((one) => ['-c', one])],
  })
  const session = createSession(pglite)
  for (const service of SERVICES) await migrateOnce(service, session)
  await session.script(DATABASE_TRIGGERS)
  const tables = (await session.run(selectTables)).rows as { name: string }[]
  const lanes = tables.filter(({ name }) => name.endsWith('.relay_lane'))
  const empty = [
    `truncate ${tables.map(({ name }) => name).join()} restart identity`,
    ...lanes.map(({ name }) => `insert into ${name} select generate_series(0, ${LANES - 1})`),
  ].join(';')
  return {
    pglite,
    session,
    useClock(now) {
      clock = now
    },
    async reset() {
      // The previous run may have ended inside a transaction.
      await session.script('rollback')
      await session.script(empty)
    },
    close: () => pglite.close(),
  }
}

const selectTables = `
  select format('%I.%I', schemaname, tablename) as name from pg_tables
  where schemaname in ('orders', 'billing', 'notification', 'simulation') and tablename <> 'migration'
  order by 1`

/** Starts a service once, outside the simulation, to run its migrations. */
async function migrateOnce(service: ServiceName, session: Session): Promise<void> {
  const direct: Queryable = {
    query: async <Row>(text: string, params?: readonly unknown[]) =>
      (await session.run(text, params)).rows as Row[],
  }
  let isMigrated = false
  const database: ServiceParts['database'] = {
    query: (text, params) => (isMigrated ? never() : direct.query(text, params)),
    async transaction(work) {
      if (isMigrated) return never()
      await session.script('begin')
      const result = await work(direct)
      const tag = await session.script('commit')
      if (tag !== 'COMMIT') throw new DatabaseError('a migration failed', 'invalid')
      return result
    },
    script: async (text) => void (await session.script(text)),
    build: async (statement) => void (await session.script(statement)),
    notify: never,
    listen: () => () => {},
    close: async () => {},
  }
  // The relay makes the first call of `uuid`, to name its instance; the migrations are done by then.
  const runtime = {
    ...inertParts.runtime,
    uuid: () => {
      isMigrated = true
      return '00000000-0000-7000-8000-000000000000'
    },
  }
  await createService(service, { ...inertParts, database, runtime })
}
