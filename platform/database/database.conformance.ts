// This file is long because it contains the whole contract that both implementations of a database must meet.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { type Database, DatabaseError, type Queryable } from './database.ts'
import { type Migration, migrate } from './migrate.ts'

/**
 * The tests that every implementation of Database has to pass. They use a separate schema and drop it at the
 * end.
 */
export function describeDatabase(
  name: string,
  open: () => Promise<Database>,
  options: { skip?: boolean } = {},
): void {
  describe(name, { skip: options.skip ?? false }, () => {
    const schema = `conformance_${randomBytes(6).toString('hex')}`
    let database: Database
    before(async () => {
      database = await open()
      await database.script(`
        create schema ${schema};
        create table ${schema}.item (id integer primary key, amount bigint check (amount >= 0));
        insert into ${schema}.item values (1, 0);`)
    })
    after(async () => {
      await database.script(`drop schema ${schema} cascade`)
      await database.close()
    })
    const context = { schema, database: () => database, open }
    describeValues(context)
    describeTransactions(context)
    describeErrors(context)
    describeMigrations(context)
  })
}

interface Context {
  readonly schema: string
  database(): Database
  open(): Promise<Database>
}

const oddStrings = [
  '',
  'NULL',
  'null',
  '"quoted" \\ {a,b}',
  "it's; -- no comment",
  ' spaced\n\ttabbed\r\n',
  'Заказ 订单 🛒 é \u{10ffff}',
  '$1 \\x00 \\\\',
]

function describeValues({ database }: Context): void {
  const roundTrip = async (type: string, value: unknown) => {
    const [row] = await database().query<{ value: unknown }>(`select $1::${type} as value`, [value])
    assert.deepEqual(row?.value, value)
  }
  const cases: [type: string, values: unknown[]][] = [
    ['bigint', [0n, -1n, 2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 63n)]],
    ['integer', [0, -1, 2_147_483_647]],
    ['double precision', [0.1, -1e300]],
    ['boolean', [true, false]],
    ['text', oddStrings],
    ['uuid', ['018f4e6a-0000-7000-8000-000000000001']],
    ['numeric', ['12345678901234567890.12']],
    ['timestamptz', [new Date(0), new Date('2026-02-28T23:59:59.999Z'), new Date(-1)]],
    ['bytea', [new Uint8Array(), Uint8Array.from({ length: 256 }, (_, at) => at)]],
  ]
  for (const [type, values] of cases) {
    test(`a ${type} makes the round trip unchanged, alone and in an array with nulls`, async () => {
      for (const value of [...values, null]) await roundTrip(type, value)
      await roundTrip(`${type}[]`, [null, ...values, null])
      await roundTrip(`${type}[]`, [])
    })
    test(`unnest turns an array of ${type} into rows`, async () => {
      const sent = [...values, null]
      const rows = await database().query<{ value: unknown }>(
        `select value from unnest($1::${type}[]) with ordinality as u (value, at) order by at`,
        [sent],
      )
      assert.deepEqual(
        rows.map((row) => row.value),
        sent,
      )
    })
  }

  test('unnest joins several arrays into rows', async () => {
    const rows = await database().query(
      'select * from unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::bytea[]) as u (a, b, c, d)',
      [
        [1n, 2n],
        ['x', null],
        [new Date(5), new Date(6)],
        [null, new Uint8Array([7])],
      ],
    )
    assert.deepEqual(rows, [
      { a: 1n, b: 'x', c: new Date(5), d: null },
      { a: 2n, b: null, c: new Date(6), d: new Uint8Array([7]) },
    ])
  })

  test('an object makes the round trip as jsonb', () =>
    roundTrip('jsonb', { a: [1, null, 'x"y'], b: { c: true } }))

  test('a time is shown in UTC and keeps its milliseconds', async () => {
    const rows = await database().query('select $1::timestamptz::text as text', [
      new Date('2026-07-01T12:00:00.123Z'),
    ])
    assert.deepEqual(rows, [{ text: '2026-07-01 12:00:00.123+00' }])
  })

  test('one statement can send and return ten thousand rows', async () => {
    const ids = Array.from({ length: 10_000 }, (_, at) => BigInt(at))
    const rows = await database().query<{ id: bigint }>(
      'select id from unnest($1::bigint[]) as u (id) order by id',
      [ids],
    )
    assert.deepEqual(
      rows.map((row) => row.id),
      ids,
    )
  })
}

function describeTransactions({ schema, database }: Context): void {
  const amountOf = async (id: number) => {
    const rows = await database().query(`select amount from ${schema}.item where id = $1`, [id])
    return rows[0]?.amount
  }

  test('a transaction that resolves is committed, and its result is returned', async () => {
    const returned = await database().transaction(async (tx) => {
      await tx.query(`insert into ${schema}.item values (10, 5)`)
      return 'done'
    })
    assert.equal(returned, 'done')
    assert.equal(await amountOf(10), 5n)
  })

  test('a transaction that rejects is rolled back and rejects with the same error', async () => {
    const fault = new Error('changed my mind')
    const attempt = database().transaction(async (tx) => {
      await tx.query(`insert into ${schema}.item values (11, 5)`)
      throw fault
    })
    await assert.rejects(attempt, (error) => error === fault)
    assert.equal(await amountOf(11), undefined)
  })

  test('a transaction that ignores the failure of a statement rejects', async () => {
    const attempt = database().transaction(async (tx) => {
      await tx.query(`insert into ${schema}.item values (12, 5)`)
      await tx.query('select 1 / 0').catch(() => {})
    })
    await assert.rejects(attempt, { name: 'DatabaseError', sqlState: '25P02' })
    assert.equal(await amountOf(12), undefined)
  })

  test('a transaction accepts no statement after its end', async () => {
    const tx = await database().transaction(async (tx) => tx)
    await assert.rejects(tx.query('select 1'), /over/)
  })

  test('statements started together in a transaction all run', async () => {
    const rows = await database().transaction((tx) =>
      Promise.all([1, 2, 3].map((value) => tx.query('select $1::integer as value', [value]))),
    )
    assert.deepEqual(rows.flat(), [{ value: 1 }, { value: 2 }, { value: 3 }])
  })

  test('statements started together in a transaction run in their order', async () => {
    const [, , after] = await database().transaction((tx) =>
      Promise.all([
        tx.query(`insert into ${schema}.item values (13, 1)`),
        tx.query(`update ${schema}.item set amount = amount + 1 where id = 13`),
        tx.query(`select amount from ${schema}.item where id = 13`),
      ]),
    )
    assert.deepEqual(after, [{ amount: 2n }])
  })

  test('statements started together reject with the first failure, and none is committed', async () => {
    const attempt = database().transaction((tx) =>
      Promise.all([
        tx.query(`insert into ${schema}.item values (14, 1)`),
        tx.query('select 1 / 0'),
        tx.query(`insert into ${schema}.item values (15, 1)`),
      ]),
    )
    await assert.rejects(attempt, { name: 'DatabaseError', sqlState: '22012' })
    assert.equal(await amountOf(14), undefined)
    assert.equal(await amountOf(15), undefined)
  })

  test('last() commits all statements, or none of them if one fails', async () => {
    const insert = (tx: Queryable, id: number) =>
      tx.query<{ id: number }>(`insert into ${schema}.item values ($1, 5) returning id`, [id])
    const ended = (ids: readonly number[]) =>
      database().transaction(async (tx) => {
        const written = Promise.all(ids.map((id) => insert(tx, id)))
        tx.last?.()
        return written
      })
    assert.deepEqual((await ended([16, 17])).flat(), [{ id: 16 }, { id: 17 }])
    await assert.rejects(ended([18, 17, 19]), { name: 'DatabaseError', kind: 'conflict' })
    assert.deepEqual(await Promise.all([16, 17, 18, 19].map(amountOf)), [
      5n,
      5n,
      undefined,
      undefined,
    ])
    const more = database().transaction(async (tx) => {
      tx.last?.()
      await insert(tx, 18)
    })
    await assert.rejects(more, /over/)
    assert.deepEqual((await ended([18])).flat(), [{ id: 18 }])
  })

  test('a constraint that is checked at the commit can roll back a transaction after last()', async () => {
    await database().script(
      `create table ${schema}.late (id integer unique deferrable initially deferred)`,
    )
    const insert = (ids: readonly number[]) =>
      database().transaction(async (tx) => {
        const written = Promise.all(
          ids.map((id) => tx.query(`insert into ${schema}.late values ($1)`, [id])),
        )
        tx.last?.()
        await written
      })
    await assert.rejects(insert([1, 1]), { name: 'DatabaseError', sqlState: '23505' })
    await insert([1])
    assert.deepEqual(await database().query(`select id from ${schema}.late`), [{ id: 1 }])
  })

  test('a transaction that ignores the failure of a statement rejects after last() too', async () => {
    const attempt = database().transaction(async (tx) => {
      const written = [
        tx.query(`insert into ${schema}.item values (20, 5)`),
        tx.query('select 1 / 0'),
      ]
      tx.last?.()
      await Promise.allSettled(written)
    })
    await assert.rejects(attempt, { name: 'DatabaseError', sqlState: '25P02' })
    assert.equal(await amountOf(20), undefined)
  })

  test('twenty concurrent transactions on one row all take effect', async () => {
    const increment = () =>
      database().transaction(async (tx) => {
        await tx.query(`update ${schema}.item set amount = amount + 1 where id = 1`)
        return tx.query<{ amount: bigint }>(`select amount from ${schema}.item where id = 1`)
      })
    const seen = await Promise.all(Array.from({ length: 20 }, increment))
    assert.equal(await amountOf(1), 20n)
    assert.equal(new Set(seen.map((rows) => rows[0]?.amount)).size, 20)
  })

  test('a script runs several statements, and is rolled back as a whole if one fails', async () => {
    await database().script(`
      create table ${schema}.scripted (id integer);
      insert into ${schema}.scripted values (1), (2);`)
    const failing = database().script(`insert into ${schema}.scripted values (3); select 1 / 0`)
    await assert.rejects(failing, { name: 'DatabaseError', kind: 'invalid' })
    const rows = await database().query(`select id from ${schema}.scripted order by id`)
    assert.deepEqual(rows, [{ id: 1 }, { id: 2 }])
  })

  test('a statement planned while its table was empty still uses the index after the table has grown', async () => {
    // The rows are wide, so the planner guesses that an empty table has only a few and that reading all of
    // them is cheap.
    const columns = Array.from({ length: 20 }, (_, nth) => `note_${nth} text`)
    await database().script(`create table ${schema}.grown (id integer primary key, ${columns})`)
    const find = `select * from ${schema}.grown where id = any($1::integer[])`
    const countScans = `select pg_stat_get_xact_numscans('${schema}.grown'::regclass) as scans`
    await database().transaction(async (tx) => {
      const before = await tx.query(countScans)
      for (let n = 0; n < 10; n += 1) await tx.query(find, [[1, 2, 3]])
      await tx.query(`insert into ${schema}.grown select generate_series(1, 2000)`)
      assert.equal((await tx.query(find, [[1, 2, 3]])).length, 3)
      assert.deepEqual(await tx.query(countScans), before)
    })
  })

  test('an update of given rows, planned while its table was small, reads only those rows', async () => {
    const few = `insert into ${schema}.changed select nth, '' from generate_series(1, 50) as nth`
    await database().script(
      `create table ${schema}.changed (id integer primary key, note text); ${few}; analyze ${schema}.changed`,
    )
    // Without the first condition, this would be a plain join, for which the planner reads a small table from
    // end to end.
    const change = `update ${schema}.changed t set note = c.note
      from unnest($1::integer[], $2::text[]) as c (id, note) where t.id = any($1) and t.id = c.id`
    const ids = Array.from({ length: 20 }, (_, nth) => 100 * (nth + 1))
    const params = [ids, ids.map(String)]
    const fetched = `select pg_stat_get_xact_tuples_fetched('${schema}.changed_pkey'::regclass) as rows`
    await database().transaction(async (tx) => {
      for (let n = 0; n < 10; n += 1) await tx.query(change, params)
      await tx.query(`insert into ${schema}.changed select generate_series(51, 2000)`)
      const before = (await tx.query<{ rows: bigint }>(fetched))[0]!.rows
      await tx.query(change, params)
      const after = (await tx.query<{ rows: bigint }>(fetched))[0]!.rows
      assert.equal(after - before, BigInt(ids.length))
    })
  })
}

function describeErrors({ schema, database, open }: Context): void {
  const refusals: [
    what: string,
    text: string,
    kind: string,
    sqlState: string,
    params?: unknown[],
  ][] = [
    ['a unique key that is taken', `insert into ${schema}.item values (1, 1)`, 'conflict', '23505'],
    ['a broken check', `insert into ${schema}.item values (13, -1)`, 'invalid', '23514'],
    ['a table that is missing', 'select * from nowhere', 'unavailable', '42P01'],
    ['two statements in one query', 'select 1; select 2', 'unavailable', '42601'],
    ['a zero byte in a text', 'select $1::text', 'invalid', '22021', ['a\0b']],
  ]
  for (const [what, text, kind, sqlState, params] of refusals) {
    test(`${what} is ${kind} (${sqlState}), each time`, async () => {
      for (let attempt = 0; attempt < 3; attempt++) {
        await assert.rejects(database().query(text, params), (error) => {
          assert.ok(error instanceof DatabaseError)
          assert.deepEqual([error.kind, error.sqlState], [kind, sqlState])
          return true
        })
      }
      assert.deepEqual(await database().query('select 1 as one'), [{ one: 1 }])
    })
  }

  test('a statement works again after its table has changed', async () => {
    const text = `select * from ${schema}.changing`
    await database().script(`create table ${schema}.changing (a integer)`)
    await database().query(text)
    await database().script(`
      alter table ${schema}.changing add b integer;
      insert into ${schema}.changing values (1, 2)`)
    await assert.rejects(database().query(text), { kind: 'conflict' })
    assert.deepEqual(await database().query(text), [{ a: 1, b: 2 }])
  })

  test('a closed database is unavailable', async () => {
    const closed = await open()
    await closed.query('select 1')
    await Promise.all([closed.close(), closed.close()])
    const unavailable = { name: 'DatabaseError', kind: 'unavailable' }
    await assert.rejects(closed.query('select 1'), unavailable)
    await assert.rejects(
      closed.transaction(async () => {}),
      unavailable,
    )
    await assert.rejects(closed.script('select 1'), unavailable)
  })
}

function describeMigrations({ schema, database }: Context): void {
  const create: Migration = {
    id: 1,
    name: 'create',
    sql: `
      create table ${schema}_m.thing (id integer primary key, note text); -- it's one
      insert into ${schema}_m.thing values (1, 'a');
      create function ${schema}_m.twice(n integer) returns integer
        language sql as $$ select n * 2 $$;
      select ${schema}_m.twice(1)`,
  }
  const extend: Migration = {
    id: 2,
    name: 'extend',
    sql: `alter table ${schema}_m.thing add extra text; update ${schema}_m.thing set extra = 'b';`,
  }
  const drop = () => database().script(`drop schema if exists ${schema}_m cascade`)
  const things = () => database().query(`select id, note, extra from ${schema}_m.thing`)

  test('migrations are applied once, and later migrations when they are added', async (t) => {
    t.after(drop)
    assert.equal(await migrate(database(), `${schema}_m`, [create]), 1)
    assert.equal(await migrate(database(), `${schema}_m`, [create]), 0)
    assert.equal(await migrate(database(), `${schema}_m`, [create, extend]), 1)
    assert.equal(await migrate(database(), `${schema}_m`, [create, extend]), 0)
    assert.deepEqual(await things(), [{ id: 1, note: 'a', extra: 'b' }])
  })

  test('the previous version of the code starts on a newer schema', async (t) => {
    t.after(drop)
    await migrate(database(), `${schema}_m`, [create, extend])
    assert.equal(await migrate(database(), `${schema}_m`, [create]), 0)
  })

  test('a version may start on the schema of the next release, but not on the one after that', async (t) => {
    t.after(drop)
    const second = { id: 3, name: 'second', sql: `alter table ${schema}_m.thing add more text` }
    await migrate(database(), `${schema}_m`, [create], 0)
    await migrate(database(), `${schema}_m`, [create, extend], 1)
    assert.equal(await migrate(database(), `${schema}_m`, [create], 0), 0)
    await migrate(database(), `${schema}_m`, [create, extend, second], 2)
    assert.equal(await migrate(database(), `${schema}_m`, [create, extend], 1), 0)
    await assert.rejects(migrate(database(), `${schema}_m`, [create], 0), {
      name: 'SchemaTooNewError',
      message: /requires a version with migration 2, and the last migration of this version is 1/,
    })
  })

  test('concurrent processes build an index once, and rebuild one that a crash left half-built', async (t) => {
    t.after(drop)
    const index = { name: 'thing_note', table: 'thing', definition: '(note)' }
    const indexed = [create, { id: 2, name: 'index', index }]
    await migrate(database(), `${schema}_m`, [create])
    // Building a unique index on values that are not unique fails, and leaves the index in the same state as
    // a crash.
    await database().query(`insert into ${schema}_m.thing values (2, 'a')`)
    const unique = `create unique index concurrently thing_note on ${schema}_m.thing (note)`
    await assert.rejects(database().build(unique), { sqlState: '23505' })
    const race = async (): Promise<number> => {
      try {
        return await migrate(database(), `${schema}_m`, indexed)
      } catch (error) {
        if (!(error instanceof DatabaseError) || error.kind === 'invalid') throw error
        return race()
      }
    }
    const applied = await Promise.all([race(), race(), race()])
    assert.deepEqual(applied.toSorted(), [0, 0, 1])
    const [row] = await database().query(
      'select indisvalid as valid from pg_index where indexrelid = $1::regclass',
      [`${schema}_m.thing_note`],
    )
    assert.deepEqual(row, { valid: true })
  })

  test('concurrent processes apply each migration once', async (t) => {
    t.after(drop)
    const race = () => migrate(database(), `${schema}_m`, [create, extend])
    const applied = await Promise.all([race(), race(), race()])
    assert.equal(
      applied.reduce((sum, count) => sum + count),
      2,
    )
    assert.deepEqual(await things(), [{ id: 1, note: 'a', extra: 'b' }])
  })

  test('a failed migration is rolled back, and earlier ones are kept', async (t) => {
    t.after(drop)
    const failing = { ...extend, sql: `delete from ${schema}_m.thing; select 1 / 0` }
    await assert.rejects(migrate(database(), `${schema}_m`, [create, failing]), {
      sqlState: '22012',
    })
    assert.equal(await migrate(database(), `${schema}_m`, [create, extend]), 1)
    assert.deepEqual(await things(), [{ id: 1, note: 'a', extra: 'b' }])
  })

  test('a migration that was applied under another name is rejected', async (t) => {
    t.after(drop)
    await migrate(database(), `${schema}_m`, [create])
    const renamed = { ...create, name: 'other' }
    await assert.rejects(migrate(database(), `${schema}_m`, [renamed]), /other/)
  })

  test('migrations out of order and invalid schema names are rejected', async () => {
    await assert.rejects(migrate(database(), `${schema}_m`, [extend, create]), /out of order/)
    await assert.rejects(migrate(database(), 'a; drop', []), /schema name/)
  })

  test('a listener is notified of its channel, and of no other', async (t) => {
    let others = 0
    const notified = Promise.withResolvers<void>()
    const channel = `${schema}_notified`
    const ends = [
      database().listen(`${schema}_other`, () => {
        others += 1
      }),
      database().listen(channel, notified.resolve),
    ]
    t.after(() => {
      for (const end of ends) end()
    })
    const roundTrip = async () => {
      const next = Promise.withResolvers<void>()
      const end = database().listen(channel, next.resolve)
      await database().notify(channel)
      await next.promise
      end()
    }
    const repeat = setInterval(() => database().notify(channel).catch(notified.reject), 20)
    await notified.promise
    clearInterval(repeat)
    // A listener that has just connected calls all callbacks, because it may have missed notifications. The first
    // notification can arrive just before these calls.
    await roundTrip()
    others = 0
    await roundTrip()
    assert.equal(others, 0)
  })
}
