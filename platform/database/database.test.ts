import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { openTestDatabase } from '../../tests/support/backends.ts'
import { createClock } from '../../tests/support/harness.ts'
import {
  type Database,
  DatabaseError,
  type DatabaseErrorKind,
  type Queryable,
  transact,
} from './database.ts'

const database = await openTestDatabase()
after(() => database.close())
await database.script('create table item (id integer primary key)')

/** Makes the first transactions fail, after their work and before their commit. */
function failing(times: number, kind: DatabaseErrorKind) {
  const counts = { started: 0 }
  const failing: Database = {
    ...database,
    transaction: (work) =>
      database.transaction(async (tx) => {
        counts.started += 1
        const result = await work(tx)
        if (counts.started <= times) throw new DatabaseError('another one won', kind)
        return result
      }),
  }
  return { failing, counts }
}

test('a transaction that loses a conflict is retried from its beginning, and takes effect once', async () => {
  const { failing: contended, counts } = failing(3, 'conflict')
  const result = await transact(contended, async (tx) => {
    await tx.query('insert into item (id) values (1)')
    return 'done'
  })
  assert.equal(result, 'done')
  assert.equal(counts.started, 4)
  assert.deepEqual(await database.query('select id from item'), [{ id: 1 }])
})

test('a unique key that another transaction has inserted is a conflict', async () => {
  let attempts = 0
  await transact(database, async (tx) => {
    attempts += 1
    // The first attempt uses the rows that it read before the other transaction's insert; the second attempt
    // reads again.
    if (attempts === 1) await tx.query('insert into item (id) values (1)')
  })
  assert.equal(attempts, 2)
})

test('a transaction that loses every conflict gives up', async () => {
  const { failing: contended, counts } = failing(Number.POSITIVE_INFINITY, 'conflict')
  await assert.rejects(
    transact(contended, async () => undefined),
    { name: 'DatabaseError', kind: 'conflict' },
  )
  assert.equal(counts.started, 8)
})

test('an error that is not a conflict is not retried', async () => {
  for (const kind of ['unavailable', 'invalid'] as const) {
    const { failing: broken, counts } = failing(1, kind)
    await assert.rejects(
      transact(broken, async () => undefined),
      { kind },
    )
    assert.equal(counts.started, 1)
  }
})

test("a clock that a test sets is the database's clock, including within a transaction", async () => {
  const clock = createClock({ frozen: true, database })
  const read = async (db: Queryable) => {
    const [row] = await db.query<{ time: Date }>('select now() as time')
    return row!.time.getTime()
  }
  const start = clock.runtime.now()
  assert.equal(await read(database), start)
  clock.advance(3_600_000)
  assert.equal(await read(database), start + 3_600_000)
  const inTransaction = await database.transaction(async (tx) => [await read(tx), await read(tx)])
  assert.deepEqual(inTransaction, [start + 3_600_000, start + 3_600_000])
})
