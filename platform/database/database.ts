/**
 * The database interface of the services. It has two implementations: PGlite (`pglite.ts`) in the process,
 * and PostgreSQL (`postgres.ts`) over the wire. Both return `bigint` as bigint, `integer` as number,
 * `timestamptz` as Date and `bytea` as Uint8Array, and accept the same types as parameters, alone or in
 * arrays for `unnest`.
 */
export interface Queryable {
  /**
   * Runs one statement. Its text has to be a constant of the code, because it is prepared once per text.
   * Statements that a transaction starts together run in that order, without a round trip for each. If
   * one of them fails, those after it fail too.
   */
  query<Row = Record<string, unknown>>(text: string, params?: readonly unknown[]): Promise<Row[]>
  /**
   * Declares that the transaction starts no more statements, and commits whatever the started ones return.
   * The commit may then be sent together with them, which saves a round trip. If one of them fails, nothing
   * is committed. Absent on a `partOf` transaction.
   */
  last?(): void
}

/** The same transaction without `last`, for work that is followed by more statements. */
export const partOf = ({ query }: Queryable): Queryable => ({ query })

export interface Database extends Queryable {
  /** Commits when `work` resolves, rolls back when it rejects. `work` must do no I/O except on `tx`. */
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>
  /** Runs several statements without parameters in one transaction. */
  script(text: string): Promise<void>
  /**
   * Runs one statement that builds an index concurrently, outside a transaction. It has no time limit,
   * because it blocks no other statement and waits for all transactions that started before it.
   */
  build(statement: string): Promise<void>
  /** Notifies all listeners of the channel, in any process. Listeners that are not connected miss it. */
  notify(channel: string): Promise<void>
  /**
   * Calls back when the channel is notified, and when a notification may have been missed. Returns a function
   * that ends this.
   */
  listen(channel: string, onNotify: () => void): () => void
  close(): Promise<void>
}

/**
 * Planner settings for statements that all find their rows by an index.
 *
 * - No sequential scans: a statement is planned once, often while its tables are still empty. Such a plan
 *   would read whole tables, and keep doing so after they have grown, until the server analyzes them.
 * - No bitmap scans: rows of the outbox and of the watch tables come and go at the front of an index. An index
 *   scan marks dead entries and skips them later; a bitmap scan visits every row deleted since the last vacuum.
 * - No JIT: compiling a plan takes longer than executing any of these statements.
 * - Generic plans: the server would plan again for each batch whose arrays are short, which takes as long as
 *   executing it.
 */
export const BY_INDEX = {
  enable_seqscan: 'off',
  enable_bitmapscan: 'off',
  jit: 'off',
  plan_cache_mode: 'force_generic_plan',
}

/**
 * Limits of a session, in milliseconds. A process that is frozen in a transaction, or whose host is gone, would
 * keep its locks until the server notices. The first limit ends its session: its transaction is rolled back, and
 * its commit fails when it wakes. The wait for a lock is much shorter than the longest statement, so that it is
 * not mistaken for a slow server; it ends in a conflict, which is retried.
 */
export const SESSION_LIMITS = {
  idle_in_transaction_session_timeout: 10_000,
  lock_timeout: 5_000,
}

/**
 * - `unavailable`: the server cannot be reached or cannot work now; wait, then retry.
 * - `conflict`: another transaction won (unique key, deadlock, serialization, lock); retry at once.
 * - `invalid`: this statement with these values will never succeed.
 */
export type DatabaseErrorKind = 'unavailable' | 'conflict' | 'invalid'

export class DatabaseError extends Error {
  readonly kind: DatabaseErrorKind
  /** PostgreSQL's five-character SQLSTATE, if the server sent one. */
  readonly sqlState: string | undefined

  constructor(message: string, kind: DatabaseErrorKind, sqlState?: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'DatabaseError'
    this.kind = kind
    this.sqlState = sqlState
  }
}

/**
 * The kind of an error by its SQLSTATE. Only invalid data (22), violated constraints (23) and exceeded limits
 * (54) are caused by the values. All other errors come from the server, the connection (these have no code) or
 * the deployment, so the statement may succeed later.
 */
export function kindOf(sqlState: string | undefined): DatabaseErrorKind {
  if (sqlState === undefined) return 'unavailable'
  if (['23505', '40001', '40P01', LOCK_NOT_AVAILABLE].includes(sqlState)) return 'conflict'
  return /^(22|23|54)/.test(sqlState) ? 'invalid' : 'unavailable'
}

const IN_FAILED_TRANSACTION = '25P02'

/** The error of later statements in a transaction after one of its statements has failed. */
export function inFailedTransaction(message: string, cause?: unknown): DatabaseError {
  return new DatabaseError(message, kindOf(IN_FAILED_TRANSACTION), IN_FAILED_TRANSACTION, cause)
}

/** The error of a commit that the server turned into a rollback. */
export const rolledBack = () =>
  inFailedTransaction('a failed statement rolled the transaction back')

/**
 * Runs a transaction, and retries it at once, a few times, after a conflict. Each wait for a lock takes up to
 * `lock_timeout`. Such a wait is repeated only for as long as the server needs to end the session that holds
 * the lock, which may be frozen in its transaction.
 */
export async function transact<T>(
  database: Database,
  work: (tx: Queryable) => Promise<T>,
): Promise<T> {
  let lockWaits = 0
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await database.transaction(work)
    } catch (error) {
      const lost = error instanceof DatabaseError && error.kind === 'conflict'
      if (lost && error.sqlState === LOCK_NOT_AVAILABLE) lockWaits += 1
      if (!lost || attempt === MAX_CONFLICTS || lockWaits === MAX_LOCK_WAITS) throw error
    }
  }
}

const MAX_CONFLICTS = 8
const LOCK_NOT_AVAILABLE = '55P03'
const MAX_LOCK_WAITS = 4

/** Rejects if the database cannot commit a write to a migrated schema now. */
export async function pingWrite(database: Queryable, schema: string): Promise<void> {
  const migration = `${schema}.migration`
  await database.query(
    `update ${migration} set name = name where id = (select min(id) from ${migration})`,
  )
}

/** Epoch milliseconds by the database's clock, with which stored times have to be compared. */
export async function databaseTime(database: Queryable): Promise<number> {
  const [row] = await database.query<{ now: Date }>('select now() as now')
  return row!.now.getTime()
}
