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
import { type Silence, watchSilence } from './silence.ts'

export interface PostgresOptions {
  readonly url: string
  /** 10 unless told; more wait their turn for up to `connectTimeoutMs`. */
  readonly maxConnections?: number
  /** 30 seconds unless told; migrations are bound by it too. */
  readonly statementTimeoutMs?: number
  /** For an audit, whose statements do not find rows by an index as those of services do. */
  readonly readsWholeTables?: true
  /** 5 seconds unless told. */
  readonly connectTimeoutMs?: number
  /** Told of its connections, and of the wait for one. */
  readonly telemetry?: Pick<Telemetry, 'gauge' | 'observe'>
  /** Told of every connection that broke while nobody used it; the pool replaces it by itself. */
  readonly onPoolError?: (error: Error) => void
}

const CONNECT_TIMEOUT_MS = 5_000
/** So many stay when they are idle: to make one anew costs more than all that an idle service asks. */
const KEPT_CONNECTIONS = 2

const STATEMENT_TIMEOUT_MS = 30_000
/** How much longer than the server's own time-out an answer is waited for. */
const SILENCE_GRACE_MS = 5_000

/**
 * PostgreSQL over the wire. Connections are made when first needed, so it may be down meanwhile. While
 * it does not answer at all, everything rejects at once, whatever statements may take otherwise.
 */
export async function openPostgres(options: PostgresOptions): Promise<Database> {
  const pool = createPool(options)
  if (options.telemetry) observePool(pool, options.telemetry)
  const listener = createListener({
    url: options.url,
    connectTimeoutMs: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    onError: (error) => options.onPoolError?.(error),
  })
  const silence = watchSilence({
    url: options.url,
    limitMs: (options.statementTimeoutMs ?? STATEMENT_TIMEOUT_MS) + SILENCE_GRACE_MS,
    onSilence: (error) => options.onPoolError?.(error),
  })
  const connectionOf = createConnections(silence)
  let closing: Promise<void> | undefined

  /** Borrows a connection; one that broke is not given back. */
  async function withConnection<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    if (closing) throw new DatabaseError('the database is closed', 'unavailable')
    silence.assertAnswers()
    const begun = performance.now()
    const client = await checkOut(pool, silence).finally(() => {
      const seconds = (performance.now() - begun) / 1000
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
        .finally(silence.close)
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
  // A connection that breaks while it is borrowed tells it here too; its statement fails anyway.
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

async function checkOut(pool: Pool, silence: Silence): Promise<PoolClient> {
  // The driver throws at once where it cannot read what the URL names, such as a certificate.
  const connected = (async () => await pool.connect())()
  try {
    return await silence.watch(connected)
  } catch (cause) {
    // It may yet come, and nobody waits for it any more.
    connected.then((client) => client.release(true)).catch(() => undefined)
    throw connectError(cause as Error)
  }
}

/** On a connection of its own: the limits of the others, and the watch for silence, would end it. */
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
  // The pool serves who asks it in the next turn, even with idle connections; the scrape asks too.
  telemetry.gauge('trifold_database_connection_waiters', async () => {
    await new Promise((resolve) => setImmediate(resolve))
    return pool.waitingCount
  })
}

interface Connection extends Statements {
  script(text: string): Promise<void>
  /** True once the connection failed, or is in a state that nobody knows. */
  broken(): boolean
  giveUp(): void
}

/** What is known of each connection of a pool. */
function createConnections(silence: Silence): (client: PoolClient) => Connection {
  const known = new WeakMap<PoolClient, Connection>()
  let generation = 0

  function create(client: PoolClient): Connection {
    let isBroken = false

    async function awaitAnswer(answer: Promise<unknown>): Promise<void> {
      try {
        await silence.watch(answer)
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
      // Whoever waits for the statements before it sees the same fault.
      commit().catch(() => undefined)
    },
  }
  // It goes out with the first statements: nothing but the loss of the connection can make it fail.
  const begun = connection.run('begin')
  try {
    const [result] = await Promise.all([work(tx), begun])
    const { command } = await commit()
    if (command !== 'COMMIT') throw rolledBack()
    return result
  } catch (error) {
    over = true
    // A commit that went out behind a statement that failed was passed over.
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
 * A column was added to what a kept statement returns, or something between us and the server
 * dropped the statement. Prepared anew, it will succeed.
 */
function isStale(error: Pick<DatabaseError, 'sqlState' | 'message'>): boolean {
  if (error.sqlState === '26000') return true
  return error.sqlState === '0A000' && error.message.startsWith('cached plan')
}

/** Whatever keeps us out, a wrong password too, says nothing against what we wanted to do. */
function connectError(cause: Error): DatabaseError {
  const sqlState = cause instanceof ServerError ? cause.code : undefined
  const reason = cause.message || String((cause as { code?: string }).code ?? cause.name)
  return new DatabaseError(`no connection to PostgreSQL: ${reason}`, 'unavailable', sqlState, cause)
}
