import { Client, Pool, type PoolClient, DatabaseError as ServerError } from 'pg'
import {
  BY_INDEX,
  type Database,
  DatabaseError,
  kindOf,
  type Queryable,
  rolledBack,
  SESSION_LIMITS,
} from '../database/database.ts'
import type { Telemetry } from '../telemetry/telemetry.ts'
import { createStatements, type Statements } from './batch.ts'
import { createListener, KEEP_ALIVE } from './listener.ts'
import { createWatchdog, type Watchdog } from './watchdog.ts'

export interface PostgresOptions {
  readonly url: string
  /**
   * 10 by default. When all connections are busy, further work waits for one for up to `connectTimeoutMs`.
   */
  readonly maxConnections?: number
  /** How long one statement may take, including a statement of a migration. 30 seconds by default. */
  readonly statementTimeoutMs?: number
  /**
   * For programs such as the audit. Unlike the statements of services, theirs do not find their rows by an
   * index.
   */
  readonly readsWholeTables?: true
  /** How long opening a connection, or waiting for a free one, may take. 5 seconds by default. */
  readonly connectTimeoutMs?: number
  /** Receives metrics about the pool's connections, and about how long work waited for one. */
  readonly telemetry?: Pick<Telemetry, 'gauge' | 'observe'>
  /** Called when an idle connection breaks (the pool replaces it), and when the server becomes unresponsive. */
  readonly onPoolError?: (error: Error) => void
}

const CONNECT_TIMEOUT_MS = 5_000
/**
 * How many idle connections stay open. Opening a connection costs more than all statements of an idle
 * service.
 */
const KEPT_CONNECTIONS = 2

const STATEMENT_TIMEOUT_MS = 30_000
/** The client waits for an answer this much longer than the server's own statement timeout. */
const ANSWER_GRACE_MS = 5_000

/**
 * Opens PostgreSQL over the wire. Connections are opened when they are first needed, so the server may be
 * down when this function is called. While the server is unresponsive, all work is rejected at once, even
 * though a statement on a responsive server may take much longer.
 */
export async function openPostgres(options: PostgresOptions): Promise<Database> {
  const pool = createPool(options)
  if (options.telemetry) observePool(pool, options.telemetry)
  const listener = createListener({
    url: options.url,
    connectTimeoutMs: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    onError: (error) => options.onPoolError?.(error),
  })
  const watchdog = createWatchdog({
    url: options.url,
    limitMs: (options.statementTimeoutMs ?? STATEMENT_TIMEOUT_MS) + ANSWER_GRACE_MS,
    onUnresponsive: (error) => options.onPoolError?.(error),
  })
  const connectionOf = createConnections(watchdog)
  let closing: Promise<void> | undefined

  /**
   * Runs work on a connection borrowed from the pool. If the connection breaks, it is removed from the pool.
   */
  async function withConnection<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    if (closing) throw new DatabaseError('the database is closed', 'unavailable')
    watchdog.assertResponsive()
    const startedMs = performance.now()
    const client = await checkOut(pool, watchdog).finally(() => {
      const seconds = (performance.now() - startedMs) / 1000
      options.telemetry?.observe('trifold_database_connection_wait_seconds', seconds)
    })
    const connection = connectionOf(client)
    try {
      return await work(connection)
    } finally {
      client.release(connection.broken())
    }
  }

  return {
    query: <Row>(text: string, params?: readonly unknown[]) =>
      withConnection(async (connection) => (await connection.run(text, params)).rows as Row[]),
    transaction: (work) => withConnection((connection) => runTransaction(connection, work)),
    script: (text) => withConnection((connection) => connection.script(text)),
    build: (statement) => build(options, statement),
    notify: (channel) =>
      withConnection(async (connection) => {
        await connection.run("select pg_notify($1, '')", [channel])
      }),
    listen: listener.listen,
    close() {
      closing ??= listener
        .close()
        .then(() => pool.end())
        .finally(watchdog.close)
      return closing
    },
  }
}

function createPool(options: PostgresOptions): Pool {
  const pool = new Pool({
    connectionString: options.url,
    max: options.maxConnections ?? 10,
    min: Math.min(KEPT_CONNECTIONS, options.maxConnections ?? KEPT_CONNECTIONS),
    connectionTimeoutMillis: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    statement_timeout: options.statementTimeoutMs ?? STATEMENT_TIMEOUT_MS,
    ...KEEP_ALIVE,
    application_name: 'trifold',
    options: Object.entries({ ...SETTINGS, ...(!options.readsWholeTables && BY_INDEX) })
      .map(([name, value]) => `-c ${name}=${value}`)
      .join(' '),
  })
  pool.on('error', (error) => options.onPoolError?.(error))
  // Without a handler, the error of a borrowed connection that breaks would end the process. Its statement
  // fails anyway.
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

const SETTINGS = {
  ...SESSION_LIMITS,
  timezone: 'UTC',
  datestyle: 'ISO',
  tcp_keepalives_idle: '10',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
  tcp_user_timeout: '25000',
}

async function checkOut(pool: Pool, watchdog: Watchdog): Promise<PoolClient> {
  // The driver throws synchronously if it cannot read a file that the URL names, such as a certificate.
  const connected = (async () => await pool.connect())()
  try {
    return await watchdog.watch(connected)
  } catch (cause) {
    // If the connection is still opened later, no work will use it, so it is closed.
    connected.then((client) => client.release(true)).catch(() => undefined)
    throw connectError(cause as Error)
  }
}

/**
 * Runs the statement on a separate connection, because the time limits of the pool's connections, or the
 * watchdog, would end it.
 */
async function build(options: PostgresOptions, statement: string): Promise<void> {
  let client: Client | undefined
  try {
    client = new Client({
      connectionString: options.url,
      connectionTimeoutMillis: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
      ...KEEP_ALIVE,
      application_name: 'trifold-build',
    })
    client.on('error', () => {})
    await client.connect()
    await client.query('set statement_timeout = 0; set lock_timeout = 0')
    await client.query(statement)
  } catch (cause) {
    throw statementError(cause as Error)
  } finally {
    await client?.end().catch(() => undefined)
  }
}

function observePool(pool: Pool, telemetry: Pick<Telemetry, 'gauge'>): void {
  telemetry.gauge('trifold_database_connections', () => [
    { labels: { state: 'busy' }, value: pool.totalCount - pool.idleCount },
    { labels: { state: 'idle' }, value: pool.idleCount },
  ])
  telemetry.gauge('trifold_database_connections_max', () => pool.options.max)
  // Even if a connection is idle, the pool hands it out only in the next turn of the event loop. The gauge is
  // therefore read a turn later, when only work that has to wait is still counted.
  telemetry.gauge('trifold_database_connection_waiters', async () => {
    await new Promise((resolve) => setImmediate(resolve))
    return pool.waitingCount
  })
}

interface Connection extends Statements {
  script(text: string): Promise<void>
  /** Returns whether the connection has failed or is in an unknown state. */
  broken(): boolean
  giveUp(): void
}

/** Keeps the prepared statements and the state of each connection in a pool. */
function createConnections(watchdog: Watchdog): (client: PoolClient) => Connection {
  const known = new WeakMap<PoolClient, Connection>()
  let generation = 0

  function create(client: PoolClient): Connection {
    let isBroken = false

    async function awaitAnswer(answer: Promise<unknown>): Promise<void> {
      try {
        await watchdog.watch(answer)
      } catch (cause) {
        const error = statementError(cause as Error)
        if (error.sqlState === undefined || /^(08|57P|25P0[345])/.test(error.sqlState))
          isBroken = true
        if (isStale(error)) generation += 1
        throw error
      }
    }

    return {
      ...createStatements(client, { awaitAnswer, generation: () => generation }),
      script: (text) => awaitAnswer(client.query(text)),
      broken: () => isBroken,
      giveUp() {
        isBroken = true
      },
    }
  }

  return (client) => {
    const connection = known.get(client) ?? create(client)
    known.set(client, connection)
    return connection
  }
}

async function runTransaction<T>(connection: Connection, work: (tx: Queryable) => Promise<T>) {
  let over = false
  let ended: ReturnType<Connection['run']> | undefined
  function commit() {
    over = true
    ended ??= connection.run('commit')
    return ended
  }
  const tx: Queryable = {
    async query<Row>(text: string, params?: readonly unknown[]) {
      if (over) throw new Error('this transaction is over')
      return (await connection.run(text, params)).rows as Row[]
    },
    last() {
      // The result of the commit is not awaited here: if it fails, the statements before it fail with the
      // same error.
      commit().catch(() => undefined)
    },
  }
  // `begin` is sent together with the first statements. It fails only if the connection is lost.
  const beginning = connection.run('begin')
  try {
    const [result] = await Promise.all([work(tx), beginning])
    const { command } = await commit()
    if (command !== 'COMMIT') throw rolledBack()
    return result
  } catch (error) {
    over = true
    // The server skips a commit that was sent together with a statement that failed.
    const hasEnded = await ended?.then(
      () => true,
      () => false,
    )
    if (!hasEnded && !connection.broken()) await connection.run('rollback').catch(connection.giveUp)
    throw error
  }
}

function statementError(cause: Error): DatabaseError {
  const sqlState = cause instanceof ServerError ? cause.code : undefined
  const kind = isStale({ sqlState, message: cause.message }) ? 'conflict' : kindOf(sqlState)
  return new DatabaseError(cause.message, kind, sqlState, cause)
}

/**
 * Whether a prepared statement is stale, because a column was added to its result, or because a proxy in
 * front of the server dropped it. The statement succeeds once it is prepared again.
 */
function isStale(error: Pick<DatabaseError, 'sqlState' | 'message'>): boolean {
  if (error.sqlState === '26000') return true
  return error.sqlState === '0A000' && error.message.startsWith('cached plan')
}

/**
 * A failed connect is always `unavailable`, even with a wrong password, because the work itself may still
 * succeed later.
 */
function connectError(cause: Error): DatabaseError {
  const sqlState = cause instanceof ServerError ? cause.code : undefined
  const reason = cause.message || String((cause as { code?: string }).code ?? cause.name)
  return new DatabaseError(
    `cannot connect to PostgreSQL: ${reason}`,
    'unavailable',
    sqlState,
    cause,
  )
}
