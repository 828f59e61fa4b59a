import type { Database, Queryable } from './database.ts'

/** One step of a schema, forward only, that the previous version of the code can live with. */
export interface Migration {
  /** Unique and rising; never given to anything else once released. */
  readonly id: number
  readonly name: string
  /** Any statements that may run inside a transaction. */
  readonly sql: string
}

/**
 * Brings a schema up to date and returns how many migrations this call applied. Each is applied in
 * one transaction with its row in `<schema>.migration`. Any number of processes may call it at
 * once: they take turns, and who comes second finds the work done. Migrations in the database that
 * the code does not know are a newer version's, and are left alone.
 *
 * Throws an Error when a migration was applied under another name, DatabaseError when one fails.
 */
export async function migrate(
  database: Database,
  schema: string,
  migrations: readonly Migration[],
): Promise<number> {
  check(schema, migrations)
  const pending = await findPending(database, schema, migrations)
  let applied = 0
  for (const migration of pending) {
    const isOurs = await database.transaction((tx) => apply(tx, schema, migration))
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
    'select to_regclass($1) is not null as exists',
    [`${schema}.migration`],
  )
  if (!table?.exists) await database.transaction((tx) => createTable(tx, schema))
  const rows = await selectApplied(database, schema)
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
}

/** False if another process was faster. */
async function apply(tx: Queryable, schema: string, migration: Migration): Promise<boolean> {
  await takeTurn(tx, schema)
  const { id, name } = migration
  const inserted = await tx.query(
    `insert into ${schema}.migration (id, name) values ($1, $2) on conflict do nothing returning id`,
    [id, name],
  )
  if (inserted.length === 0) return false
  await tx.query(asOneStatement(migration.sql))
  return true
}

/** Waits until no other process migrates this schema; held until the transaction ends. */
async function takeTurn(tx: Queryable, schema: string): Promise<void> {
  await tx.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`migrate ${schema}`])
}

function selectApplied(database: Queryable, schema: string) {
  return database.query<{ id: number; name: string }>(
    `select id, name from ${schema}.migration order by id`,
  )
}

/** `execute` parses each statement only when the ones before it ran, so they may build on them. */
function asOneStatement(sql: string): string {
  return `do $migration$ begin execute $statements$${sql}$statements$; end $migration$`
}

function check(schema: string, migrations: readonly Migration[]): void {
  if (!/^[a-z_][a-z0-9_]*$/.test(schema)) throw new Error(`${schema} is no plain schema name`)
  let lastId = Number.NEGATIVE_INFINITY
  for (const { id, name, sql } of migrations) {
    if (id <= lastId) throw new Error(`migration ${id} (${name}) is out of order`)
    if (/\$(migration|statements)\$/.test(sql)) throw new Error(`migration ${id} uses our quotes`)
    lastId = id
  }
}
