import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { describeDatabase } from '../database/database.conformance.ts'
import { type Queryable, transact } from '../database/database.ts'
import { migrate } from '../database/migrate.ts'
import { createTelemetry } from '../telemetry/telemetry.ts'
import { openPostgres, type PostgresOptions } from './postgres.ts'

const url = process.env.TEST_DATABASE_URL
const name = url ? 'PostgreSQL' : 'PostgreSQL (skipped: TEST_DATABASE_URL names no server)'

describeDatabase(name, () => openPostgres({ url: url! }), { skip: !url })

describe(`${name}, when connections break`, { skip: !url }, () => {
  const unavailable = { name: 'DatabaseError', kind: 'unavailable' }
  const open = async (t: TestContext, options: Partial<PostgresOptions> = {}) => {
    const database = await openPostgres({ url: url!, ...options })
    t.after(() => database.close())
    return database
  }
  const kill = 'select pg_terminate_backend($1)'
  const pidOf = async (connection: Queryable) => {
    const rows = await connection.query<{ pid: number }>('select pg_backend_pid() as pid')
    return rows[0]!.pid
  }

  test('an idle connection that dies is reported and replaced', async (t) => {
    const died = Promise.withResolvers<Error>()
    const database = await open(t, { onPoolError: died.resolve })
    const pid = await pidOf(database)
    const other = await open(t)
    await other.query(kill, [pid])
    assert.match((await died.promise).message, /terminat/)
    assert.deepEqual(await database.query('select 1 as one'), [{ one: 1 }])
  })

  test('reports its connections, how many transactions wait for one, and how long they waited', async (t) => {
    const telemetry = createTelemetry('order')
    const database = await open(t, { maxConnections: 1, telemetry })
    const values = async () => {
      const { body } = await telemetry.scrape()
      const of = (name: string) => Number(body.match(new RegExp(`^${name}.* (\\S+)$`, 'm'))?.[1])
      return {
        busy: of('trifold_database_connections{state="busy"'),
        idle: of('trifold_database_connections{state="idle"'),
        max: of('trifold_database_connections_max'),
        waiters: of('trifold_database_connection_waiters'),
        waits: of('trifold_database_connection_wait_seconds_count'),
      }
    }
    let waiting: Promise<unknown> | undefined
    const now = await database.transaction(async () => {
      waiting = database.query('select 1')
      return await values()
    })
    await waiting
    assert.deepEqual(now, { busy: 1, idle: 0, max: 1, waiters: 1, waits: 1 })
    assert.deepEqual(await values(), { busy: 0, idle: 1, max: 1, waiters: 0, waits: 2 })
  })

  test('a transaction whose connection dies rejects, and the next one works', async (t) => {
    const database = await open(t, { maxConnections: 1 })
    const other = await open(t)
    const attempt = database.transaction(async (tx) => {
      await other.query(kill, [await pidOf(tx)])
      await tx.query('select 2')
    })
    await assert.rejects(attempt, unavailable)
    assert.equal(await database.transaction(async () => 'works'), 'works')
  })

  test('a statement that takes too long is unavailable and its connection is kept', async (t) => {
    const database = await open(t, { maxConnections: 1, statementTimeoutMs: 500 })
    const before = await pidOf(database)
    await assert.rejects(database.query('select pg_sleep(30)'), {
      ...unavailable,
      sqlState: '57014',
    })
    await assert.rejects(
      database.transaction((tx) => tx.query('select pg_sleep(30)')),
      unavailable,
    )
    assert.equal(await pidOf(database), before)
  })

  test('a session that stays idle in a transaction is ended, which releases its locks', async (t) => {
    const database = await open(t, { maxConnections: 1 })
    const other = await open(t)
    await database.script('drop table if exists public.locked')
    await database.script('create table public.locked (id integer primary key)')
    await database.query('insert into public.locked values (1)')
    const lock = (tx: Queryable) => tx.query('select id from public.locked for update')
    const locked = Promise.withResolvers<void>()
    const wake = Promise.withResolvers<void>()
    const frozen = database.transaction(async (tx) => {
      await lock(tx)
      locked.resolve()
      await wake.promise
      await tx.query('delete from public.locked')
    })
    frozen.catch(() => undefined)
    await locked.promise
    const startedMs = performance.now()
    await assert.rejects(other.transaction(lock), { kind: 'conflict', sqlState: '55P03' })
    assert.deepEqual(await transact(other, lock), [{ id: 1 }])
    assert.ok(performance.now() - startedMs < 15_000)
    wake.resolve()
    await assert.rejects(frozen, unavailable)
    assert.deepEqual(await database.query('select id from public.locked'), [{ id: 1 }])
    await database.script('drop table public.locked')
  })

  test('a rejected statement does not cost its connection', async (t) => {
    const database = await open(t, { maxConnections: 1 })
    const before = await pidOf(database)
    await assert.rejects(database.query('select 1 / 0'))
    await assert.rejects(database.transaction((tx) => tx.query('select 1 / 0')))
    assert.equal(await pidOf(database), before)
  })

  test('work that gets no connection in time is unavailable', async (t) => {
    const database = await open(t, { maxConnections: 1, connectTimeoutMs: 1_000 })
    await database.transaction(async () => {
      await assert.rejects(database.query('select 1'), unavailable)
    })
  })

  test('a wrong database name makes work unavailable, not invalid', async (t) => {
    const wrong = new URL(url!)
    wrong.pathname = '/no_such_database'
    const database = await open(t, { url: wrong.href })
    await assert.rejects(database.query('select 1'), { ...unavailable, sqlState: '3D000' })
  })
})

describe(`${name}, while a schema is migrated`, { skip: !url }, () => {
  test('keeps committing, with a million rows and a long read open', async (t) => {
    const schema = `live_${crypto.randomUUID().slice(0, 8)}`
    const [running, reading, migrating] = [
      await openPostgres({ url: url! }),
      await openPostgres({ url: url! }),
      await openPostgres({ url: url! }),
    ]
    t.after(async () => {
      await running.script(`drop schema ${schema} cascade`)
      await Promise.all([running, reading, migrating].map((one) => one.close()))
    })
    await running.script(`
      create schema ${schema};
      create table ${schema}.item (id integer primary key, note text);
      insert into ${schema}.item select n, 'a' from generate_series(1, 1000000) as n`)
    const next = [
      { id: 1, name: 'column', sql: `alter table ${schema}.item add column extra text` },
      { id: 2, name: 'index', index: { name: 'item_note', table: 'item', definition: '(note)' } },
    ]
    const read = reading.transaction(async (tx) => {
      // The session keeps running statements, like a long report, so that it is never idle.
      await tx.query(`select count(*) from ${schema}.item`)
      for (let n = 0; n < 30; n += 1) await tx.query('select pg_sleep(0.1)')
    })
    let isMigrated = false
    const latencies: number[] = []
    async function commit(): Promise<void> {
      while (!isMigrated) {
        const startedMs = performance.now()
        await running.query(`update ${schema}.item set note = 'b' where id = $1`, [
          1 + (latencies.length % 1_000_000),
        ])
        latencies.push(performance.now() - startedMs)
      }
    }
    const committing = commit()
    let conflicts = 0
    while (!isMigrated) {
      try {
        await migrate(migrating, schema, next)
        isMigrated = true
      } catch (error) {
        assert.equal((error as { kind?: unknown }).kind, 'conflict')
        conflicts += 1
        await new Promise((resolve) => setTimeout(resolve, 200))
      }
    }
    await Promise.all([committing, read])
    assert.ok(conflicts > 0, 'the read did not hold the migration up')
    const p99 = latencies.toSorted((a, b) => a - b)[Math.floor(latencies.length * 0.99)]!
    assert.ok(p99 < 200, `${p99} ms, of ${latencies.length}`)
  })
})

describe('PostgreSQL that cannot be reached', () => {
  const unavailable = { name: 'DatabaseError', kind: 'unavailable' }

  test('opens, and all work is unavailable while no server listens', async (t) => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    server.close()
    const database = await openPostgres({ url: `postgres://nobody@127.0.0.1:${port}/none` })
    t.after(() => database.close())
    await assert.rejects(database.query('select 1'), unavailable)
    await assert.rejects(
      database.transaction(async () => {}),
      unavailable,
    )
  })

  test('is given up after the timeout if it does not respond', async (t) => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.after(() => server.close())
    const { port } = server.address() as AddressInfo
    const database = await openPostgres({
      url: `postgres://nobody@127.0.0.1:${port}/none`,
      connectTimeoutMs: 50,
    })
    t.after(() => database.close())
    await assert.rejects(database.query('select 1'), unavailable)
  })
})

describe('a certificate that cannot be read', () => {
  test('makes the database and its listener unavailable, and does not end the process', async (t) => {
    const errors: Error[] = []
    const database = await openPostgres({
      url: 'postgres://nobody@127.0.0.1:1/none?sslmode=verify-full&sslrootcert=/no/such/file',
      onPoolError: (error) => errors.push(error),
    })
    t.after(() => database.close())
    database.listen('anything', () => {})
    const unavailable = { name: 'DatabaseError', kind: 'unavailable', message: /no such file/ }
    await assert.rejects(database.query('select 1'), unavailable)
    await assert.rejects(
      database.transaction(async () => {}),
      unavailable,
    )
    assert.match(errors[0]!.message, /no such file/)
  })
})
