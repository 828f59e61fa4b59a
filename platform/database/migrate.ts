import type { Database, Queryable } from './database.ts'

/**
 * One step of a schema: either statements or an index. Steps only go forward, and the previous release of the
 * code has to work with the resulting schema.
 */
export interface Migration {
  /** Unique and ascending. Once released, it is never used for another migration. */
  readonly id: number
  readonly name: string
  /**
   * Statements that run in the transaction that records the migration. They may take up to 30 seconds, and
   * wait up to `LOCK_WAIT` for a lock.
   */
  readonly sql?: string
  /**
   * An index on a table that may be large. It is built without blocking writers, however long the build
   * takes.
   */
  readonly index?: IndexBuild
}

export interface IndexBuild {
  readonly name: string
  readonly table: string
  readonly unique?: true
  /** The part of the index definition after the table's name, such as `(lane, due) where carrier = 'http'`. */
  readonly definition: string
}

/** Thrown if this code is older than the oldest version that may start on the schema. A retry cannot help. */
export class SchemaTooNewError extends Error {
  constructor(schema: string, needed: number, known: number) {
    super(
      `the schema ${schema} belongs to a newer version: it requires a version with migration ${needed}, ` +
        `and the last migration of this version is ${known}; start a newer version, or restore a backup`,
    )
    this.name = 'SchemaTooNewError'
  }
}

/**
 * How long a migration waits for a lock on a table. All later statements on the table queue behind the
 * migration, including those of the running version. The migration therefore gives up soon and is retried
 * from its beginning.
 */
const LOCK_WAIT = '100ms'
const STATEMENTS_LIMIT = '30s'
/** How long a process waits for its turn while other processes migrate the same schema. */
const TURN_WAIT = '5s'

/**
 * Brings a schema up to date, and returns how many migrations this call applied. Any number of processes may
 * call it at the same time: they take turns, and each migration is applied once.
 *
 * `compatibleFrom` is the id of the last migration of the previous release. Code that has at least that
 * migration works on a schema with all of `migrations`, and may still start on it. Processes that are already
 * running are never stopped. Applied migrations that this code does not know belong to a newer version and
 * are ignored.
 *
 * Throws SchemaTooNewError if the schema requires newer code, Error if a migration was applied under another
 * name, and DatabaseError if a migration fails. If the kind of the DatabaseError is `conflict` or
 * `unavailable`, another call may succeed; it continues with the migration that failed.
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
        `migration ${migration.id} of ${schema} was applied as ${name}, but its name is ${migration.name}`,
      )
    }
    return name === undefined
  })
}

async function createTable(tx: Queryable, schema: string): Promise<void> {
  await takeTurn(tx, schema)
  // Not `create schema if not exists`, because after waiting for its turn, the session may still have an
  // outdated catalog cache. A query on the catalog reads its current state.
  const schemas = await tx.query('select from pg_namespace where nspname = $1', [schema])
  if (schemas.length === 0) await tx.query(`create schema ${schema}`)
  await tx.query(`
    create table if not exists ${schema}.migration (
      id integer primary key,
      name text not null,
      applied timestamptz not null default now()
    )`)
  // The first releases created the table without this column, and still insert rows without it.
  await tx.query(`alter table ${schema}.migration add column if not exists compatible_from integer`)
}

/** Applies one migration. Returns false if another process has already applied it. */
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
 * Builds an index once. If two processes try at the same time, they take turns, or the second process fails
 * because the name already exists. An index that a crash left half-built is dropped first.
 */
async function buildIndex(database: Database, schema: string, index: IndexBuild): Promise<void> {
  const { name, table, definition } = index
  const isBuilt = await database.transaction(async (tx) => {
    await setLocal(tx, { lock_timeout: LOCK_WAIT })
    // A process holds this lock for as long as it builds the index. If the index is invalid while this
    // transaction has the lock, no process is still building it, so a crash left it behind.
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

/**
 * Waits until no other process is migrating this schema, and makes other processes wait until the transaction
 * ends.
 */
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

/**
 * Makes one statement of several. `execute` parses each of them only after those before it have run, so it
 * can use the tables that they created.
 */
function asOneStatement(sql: string): string {
  return `do $migration$ begin execute $statements$${sql}$statements$; end $migration$`
}

function check(schema: string, migrations: readonly Migration[]): void {
  if (!/^[a-z_][a-z0-9_]*$/.test(schema))
    throw new Error(
      `${schema} is not a valid schema name: use lower-case letters, digits and underscores`,
    )
  let lastId = Number.NEGATIVE_INFINITY
  for (const { id, name, sql, index } of migrations) {
    if (id <= lastId) throw new Error(`migration ${id} (${name}) is out of order`)
    if (/\$(migration|statements)\$/.test(sql ?? ''))
      throw new Error(`migration ${id} contains a reserved dollar quote`)
    if ((sql === undefined) === (index === undefined))
      throw new Error(`migration ${id} must have statements or an index`)
    lastId = id
  }
}
