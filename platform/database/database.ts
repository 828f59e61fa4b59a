/**
 * What the services know of a database. Two implementations: PGlite (`pglite.ts`) in the process,
 * PostgreSQL (`postgres.ts`) over the wire. Both read `bigint` as bigint, `integer` as number,
 * `timestamptz` as Date and `bytea` as Uint8Array, and take the same as parameters, alone or in
 * arrays for `unnest`.
 */
export interface Queryable {
  /**
   * Runs one statement. Its text is a constant of the code: drivers prepare it once per text. In a
   * transaction those that are begun together run in that order, without a round trip for each; where
   * one fails, those after it fail too.
   */
  query<Row = Record<string, unknown>>(text: string, params?: readonly unknown[]): Promise<Row[]>
  /**
   * Says, in a transaction, that it has no more statements than were begun, and that nothing which they
   * return can stop it: the commit may go out with them, and saves a round trip. Where one of them fails
   * nothing is committed. Only what runs as a part of a transaction has none of it.
   */
  last?(): void
}

/** A transaction for work after which more is to be done in it. */
export const partOf = ({ query }: Queryable): Queryable => ({ query })

export interface Database extends Queryable {
  /** Commits when `work` resolves, rolls back when it rejects. No I/O but the database's inside. */
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>
  /** Runs several statements without parameters, as migrations need. */
  script(text: string): Promise<void>
  /**
   * Runs one statement that builds an index concurrently: outside a transaction, and without a limit on
   * its time, since it blocks nobody and waits for every transaction that was there before it.
   */
  build(statement: string): Promise<void>
  /** Tells whoever listens on the channel, in any process; nothing is kept for those who do not. */
  notify(channel: string): Promise<void>
  /** Calls back when the channel is notified, and whenever that may have been missed; returns what ends it. */
  listen(channel: string, onNotify: () => void): () => void
  close(): Promise<void>
}

/**
 * How a server is to plan statements that all find their rows by an index. A plan is made once and kept,
 * often when the tables are still empty: then it reads them whole, and goes on so until somebody counts
 * them, when they have grown long since. And rows of the outbox and of the watch come and go at the front of
 * an index, where a scan of it notes which are dead and passes them over, while a bitmap scan visits all
 * that died since the last vacuum. To compile a plan takes longer than any of them, and to make one anew for
 * each batch, as the server does for the shortest of arrays, as long as to execute it.
 */
export const BY_INDEX = {
  enable_seqscan: 'off',
  enable_bitmapscan: 'off',
  jit: 'off',
  plan_cache_mode: 'force_generic_plan',
}

/**
 * In milliseconds. A process that is frozen in a transaction, or whose host is gone, would keep its locks for
 * as long as the server believes in it. The limits end its session; what it had begun is rolled back, and its
 * commit fails when it wakes. Waiting for a lock ends well before the longest statement, so that it can be
 * told from a server that is slow; it is a conflict, and retried.
 */
export const SESSION_LIMITS = {
  idle_in_transaction_session_timeout: 10_000,
  lock_timeout: 5_000,
}

/**
 * `unavailable`: the server cannot be reached or cannot work now; wait and try again.
 * `conflict`: another transaction won (unique key, deadlock, serialization); try again at once.
 * `invalid`: this statement with these values will never succeed.
 */
export type DatabaseErrorKind = 'unavailable' | 'conflict' | 'invalid'

export class DatabaseError extends Error {
  readonly kind: DatabaseErrorKind
  /** PostgreSQL's five-character SQLSTATE, where the server gave one. */
  readonly sqlState: string | undefined

  constructor(message: string, kind: DatabaseErrorKind, sqlState?: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'DatabaseError'
    this.kind = kind
    this.sqlState = sqlState
  }
}

/**
 * Sorts a SQLSTATE. Only bad data (22), broken constraints (23) and values beyond a limit (54) are
 * the fault of the values; all else is the server's, the connection's (no code at all) or a
 * deployment's, and may pass.
 */
export function kindOf(sqlState: string | undefined): DatabaseErrorKind {
  if (sqlState === undefined) return 'unavailable'
  if (['23505', '40001', '40P01', LOCK_NOT_AVAILABLE].includes(sqlState)) return 'conflict'
  return /^(22|23|54)/.test(sqlState) ? 'invalid' : 'unavailable'
}

const IN_FAILED_TRANSACTION = '25P02'

/** What becomes of all else in a transaction of which a statement failed. */
export function inFailedTransaction(message: string, cause?: unknown): DatabaseError {
  return new DatabaseError(message, kindOf(IN_FAILED_TRANSACTION), IN_FAILED_TRANSACTION, cause)
}

/** Instead of a commit, the server has rolled back. */
export const rolledBack = () => inFailedTransaction('a failed statement rolled it all back')

/**
 * A transaction that is retried, at once and a few times, when another one won a conflict. Waiting for a
 * lock takes as long as `lock_timeout` each time, so that is retried only until whatever holds the lock,
 * perhaps frozen in its transaction, has been ended by the server.
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

/** Rejects when the database cannot commit a write to a migrated schema now. */
export async function pingWrite(database: Queryable, schema: string): Promise<void> {
  const migration = `${schema}.migration`
  await database.query(
    `update ${migration} set name = name where id = (select min(id) from ${migration})`,
  )
}

/** Epoch milliseconds by the clock that wrote the times in the database; this machine may have another. */
export async function databaseTime(database: Queryable): Promise<number> {
  const [row] = await database.query<{ now: Date }>('select now() as now')
  return row!.now.getTime()
}
