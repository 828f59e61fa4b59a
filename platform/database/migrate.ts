import type { Database, Queryable } from './database.ts'

/**
 * One step of a schema, forward only, that the previous version of the code can live with. Either
 * statements or an index.
 */
export interface Migration {
  /** Unique and rising; never given to anything else once released. */
  readonly id: number
  readonly name: string
  /**
   * Statements that run in one transaction, together with the row that says they were applied. They may
   * take no longer than 30 seconds, and wait for a lock no longer than `LOCK_WAIT`.
   */
  readonly sql?: string
  /** An index on a table that may be large: built without blocking writers, however long it takes. */
  readonly index?: IndexBuild
}

export interface IndexBuild {
  readonly name: string
  readonly table: string
  readonly unique?: true
  /** What follows the table's name, such as `(lane, due) where carrier = 'http'`. */
  readonly definition: string
}

/** This version of the code is older than the oldest that may start on the schema. Not retryable. */
export class SchemaTooNewError extends Error {
  constructor(schema: string, needed: number, known: number) {
    super(
      `the schema ${schema} belongs to a newer version: it needs a version that knows migration ${needed}, ` +
        `and this one knows no later one than ${known}; start a newer version, or restore a backup`,
    )
    this.name = 'SchemaTooNewError'
  }
}

/**
 * How long a migration waits for a lock. Whoever comes after it waits behind it, the commits of the
 * running version too, so it gives up soon and is tried again from the start.
 */
const LOCK_WAIT = '100ms'
const STATEMENTS_LIMIT = '30s'
/** Other processes migrate one after the other meanwhile. */
const TURN_WAIT = '5s'

/**
 * Brings a schema up to date and returns how many migrations this call applied. Any number of processes
 * may call it at once: they take turns, and later ones find the work done.
 *
 * `compatibleFrom` is the last migration of the previous release: the oldest code that can live with
 * everything in `migrations`, and so may still start once they are applied. Processes that already run
 * are never stopped. Migrations that this code does not know are a newer version's and are left alone.
 *
 * Throws SchemaTooNewError where a newer version has left this one behind, Error when a migration was
 * applied under another name, and DatabaseError when one fails; a `conflict` or `unavailable` one is
 * worth another call, which goes on where this one ended.
 */
export async function migrate(
  database: Database,
  schema: string,
  migrations: readonly Migration[],
  compatibleFrom = 0,
): Promise<number> {
  check(schema, migrations)
  const pending = await findPending(database, schema, migrations)
  let applied = 0
  for (const migration of pending) {
    const { index } = migration
    if (index) await buildIndex(database, schema, index)
    const isOurs = await database.transaction((tx) => apply(tx, schema, migration, compatibleFrom))
    if (isOurs) applied += 1
  }
  return applied
}

async function findPending(
  database: Database,
  schema: string,
  migrations: readonly Migration[],
): Promise<readonly Migration[]> {
  const [table] = await database.query<{ exists: boolean }>(
    `select exists (
       select from pg_attribute
       where attrelid = to_regclass($1) and attname = 'compatible_from') as exists`,
    [`${schema}.migration`],
  )
  if (!table?.exists) await database.transaction((tx) => createTable(tx, schema))
  const rows = await selectApplied(database, schema)
  const known = migrations.at(-1)?.id ?? 0
  const needed = Math.max(0, ...rows.map((row) => row.compatibleFrom ?? 0))
  if (needed > known) throw new SchemaTooNewError(schema, needed, known)
  const names = new Map(rows.map((row) => [row.id, row.name]))
  return migrations.filter((migration) => {
    const name = names.get(migration.id)
    if (name !== undefined && name !== migration.name) {
      throw new Error(
        `migration ${migration.id} of ${schema} is ${name} there and ${migration.name} here`,
      )
    }
    return name === undefined
  })
}

async function createTable(tx: Queryable, schema: string): Promise<void> {
  await takeTurn(tx, schema)
  // Not `if not exists`: a session may still believe what it knew before it waited for its turn,
  // which reading the catalog itself sets right.
  const schemas = await tx.query('select from pg_namespace where nspname = $1', [schema])
  if (schemas.length === 0) await tx.query(`create schema ${schema}`)
  await tx.query(`
    create table if not exists ${schema}.migration (
      id integer primary key,
      name text not null,
      applied timestamptz not null default now()
    )`)
  // Released versions made the table without it, and insert rows without it.
  await tx.query(`alter table ${schema}.migration add column if not exists compatible_from integer`)
}

/** False if another process was faster. */
async function apply(
  tx: Queryable,
  schema: string,
  { id, name, sql }: Migration,
  compatibleFrom: number,
): Promise<boolean> {
  await takeTurn(tx, schema)
  const inserted = await tx.query(
    `insert into ${schema}.migration (id, name, compatible_from) values ($1, $2, $3)
     on conflict do nothing returning id`,
    [id, name, compatibleFrom],
  )
  if (inserted.length === 0) return false
  if (sql === undefined) return true
  await setLocal(tx, { lock_timeout: LOCK_WAIT, statement_timeout: STATEMENTS_LIMIT })
  await tx.query(asOneStatement(sql))
  return true
}

/**
 * Builds an index once. Two processes that build it at the same time take turns or fail over its name;
 * an index that a crash left half-built is dropped first.
 */
async function buildIndex(database: Database, schema: string, index: IndexBuild): Promise<void> {
  const { name, table, definition } = index
  const isBuilt = await database.transaction(async (tx) => {
    await setLocal(tx, { lock_timeout: LOCK_WAIT })
    // Builds hold this lock to their end, so an index that is invalid under it is nobody's work any more.
    await tx.query(`lock table ${schema}.${table} in share update exclusive mode`)
    const [found] = await tx.query<{ valid: boolean }>(
      'select indisvalid as valid from pg_index where indexrelid = to_regclass($1)',
      [`${schema}.${name}`],
    )
    if (found && !found.valid) await tx.query(`drop index ${schema}.${name}`)
    return found?.valid ?? false
  })
  if (isBuilt) return
  const kind = index.unique ? 'unique index' : 'index'
  await database.build(`create ${kind} concurrently ${name} on ${schema}.${table} ${definition}`)
}

/** Waits until no other process migrates this schema; held until the transaction ends. */
async function takeTurn(tx: Queryable, schema: string): Promise<void> {
  await setLocal(tx, { lock_timeout: TURN_WAIT })
  await tx.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`migrate ${schema}`])
}

async function setLocal(tx: Queryable, settings: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, value] of Object.entries(settings)) {
    await tx.query('select set_config($1, $2, true)', [name, value])
  }
}

function selectApplied(database: Queryable, schema: string) {
  return database.query<{ id: number; name: string; compatibleFrom: number | null }>(
    `select id, name, compatible_from as "compatibleFrom" from ${schema}.migration order by id`,
  )
}

/** `execute` parses each statement only when the ones before it ran, so they may build on them. */
function asOneStatement(sql: string): string {
  return `do $migration$ begin execute $statements$${sql}$statements$; end $migration$`
}

function check(schema: string, migrations: readonly Migration[]): void {
  if (!/^[a-z_][a-z0-9_]*$/.test(schema)) throw new Error(`${schema} is no plain schema name`)
  let lastId = Number.NEGATIVE_INFINITY
  for (const { id, name, sql, index } of migrations) {
    if (id <= lastId) throw new Error(`migration ${id} (${name}) is out of order`)
    if (/\$(migration|statements)\$/.test(sql ?? ''))
      throw new Error(`migration ${id} uses our quotes`)
    if ((sql === undefined) === (index === undefined))
      throw new Error(`migration ${id} must have statements or an index`)
    lastId = id
  }
}
