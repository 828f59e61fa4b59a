/**
 * The database interface of the services. It has two implementations: PGlite inside the process
 * (`pglite.ts`), and PostgreSQL over the wire (`postgres.ts`). Both return `bigint` as bigint, `integer` as
 * number, `timestamptz` as Date and `bytea` as Uint8Array. They accept the same types as parameters, alone or
 * in arrays for `unnest`.
 */
export interface Queryable {
  /**
   * Runs one statement. The text has to be a constant in the code, because each distinct text is prepared
   * once. Statements that a transaction starts without waiting for each other run in the order in which they
   * were started, without a round trip for each. If one of them fails, those after it fail as well.
   */
  query<Row = Record<string, unknown>>(text: string, params?: readonly unknown[]): Promise<Row[]>
  /**
   * Declares that the transaction starts no more statements, and commits whatever the statements already
   * started return. The commit may then be sent together with them, which saves a round trip. If one of the
   * statements fails, nothing is committed. Absent on a `partOf` transaction.
   */
  last?(): void
}

/** The same transaction without `last`, for work after which the transaction runs more statements. */
export const partOf = ({ query }: Queryable): Queryable => ({ query })

export interface Database extends Queryable {
  /** Commits when `work` resolves, rolls back when it rejects. `work` must do no I/O except on `tx`. */
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>
  /** Runs several statements without parameters in one transaction. */
  script(text: string): Promise<void>
  /**
   * Runs one statement that builds an index concurrently, outside a transaction. It has no time limit: it has
   * to wait for all transactions that started before it, and it blocks no other statement.
   */
  build(statement: string): Promise<void>
  /**
   * Notifies all listeners on the channel, in any process. Listeners that are not connected miss the
   * notification.
   */
  notify(channel: string): Promise<void>
  /**
   * Calls `onNotify` when the channel is notified, and when a notification may have been missed. Returns a
   * function that stops listening.
   */
  listen(channel: string, onNotify: () => void): () => void
  close(): Promise<void>
}

/**
 * Planner settings for statements that all find their rows by an index.
 *
 * - No sequential scans: a statement is planned once, often while its tables are still empty. The plan would
 *   then read whole tables, and keep doing so after they have grown, until the server analyzes them.
 * - No bitmap scans: rows in the outbox and in the tables `watch` and `void_watch` come and go at the front
 *   of an index. An index scan marks dead entries and skips them later; a bitmap scan visits every row
 *   deleted since the last vacuum.
 * - No JIT: compiling a plan takes longer than executing any of these statements.
 * - Generic plans: otherwise, the server would plan a statement again for each batch with short arrays, which
 *   takes as long as executing it.
 */
export const BY_INDEX = {
  enable_seqscan: 'off',
  enable_bitmapscan: 'off',
  jit: 'off',
  plan_cache_mode: 'force_generic_plan',
}

/**
 * Limits of a session, in milliseconds. If a process is frozen in a transaction, or its host is gone, its
 * locks would be kept until the server notices. The first limit ends such a session: the transaction is
 * rolled back, and if the process wakes, its commit fails. The second limit ends a wait for a lock with a
 * conflict, which is retried. It is much shorter than the longest statement may take, so that a wait for a
 * lock is not mistaken for a slow server.
 */
export const SESSION_LIMITS = {
  idle_in_transaction_session_timeout: 10_000,
  lock_timeout: 5_000,
}

/**
 * - `unavailable`: the server cannot be reached or cannot work now; retry after a delay.
 * - `conflict`: another transaction came first (unique key, deadlock, serialization, lock); retry at once.
 * - `invalid`: the statement will never succeed with these values; do not retry.
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
 * Classifies an error by its SQLSTATE. Only invalid data (class 22), violated constraints (23) and exceeded
 * limits (54) are caused by the values of the statement. All other errors are caused by the server, the
 * connection (without a SQLSTATE) or the deployment, so the statement may succeed later.
 */
export function kindOf(sqlState: string | undefined): DatabaseErrorKind {
  if (sqlState === undefined) return 'unavailable'
  if (['23505', '40001', '40P01', LOCK_NOT_AVAILABLE].includes(sqlState)) return 'conflict'
  return /^(22|23|54)/.test(sqlState) ? 'invalid' : 'unavailable'
}

const IN_FAILED_TRANSACTION = '25P02'

/** The error of the remaining statements in a transaction after one of its statements has failed. */
export function inFailedTransaction(message: string, cause?: unknown): DatabaseError {
  return new DatabaseError(message, kindOf(IN_FAILED_TRANSACTION), IN_FAILED_TRANSACTION, cause)
}

/** The error of a commit that the server turned into a rollback. */
export const rolledBack = () =>
  inFailedTransaction('a failed statement rolled back the transaction')

/**
 * Runs a transaction, and retries it at once after a conflict, a few times. Each wait for a lock takes up to
 * `lock_timeout`. The number of such waits is just large enough for the server to end the session that holds
 * the lock, if that session is frozen in a transaction.
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

/** Rejects if the database cannot currently commit a write. The schema must have been migrated. */
export async function pingWrite(database: Queryable, schema: string): Promise<void> {
  const migration = `${schema}.migration`
  await database.query(
    `update ${migration} set name = name where id = (select min(id) from ${migration})`,
  )
}

/** The time by the database's clock, in epoch milliseconds. Stored times must be compared with this clock. */
export async function databaseTime(database: Queryable): Promise<number> {
  const [row] = await database.query<{ now: Date }>('select now() as now')
  return row!.now.getTime()
}
