import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { watchFlushes } from '../../tests/support/unflushed-writes.ts'
import { openPglite } from './pglite.ts'

/** Counting flushes needs no real disk, and in memory the thousands of flushes during a start cost nothing. */
const PARENT = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

/** An empty folder whose flushes are recorded, and a second folder for the files that a power cut would leave. */
function folders(t: TestContext) {
  const folder = mkdtempSync(join(PARENT, 'trifold-flush-'))
  const [live, left] = [join(folder, 'live'), join(folder, 'left')]
  mkdirSync(live)
  const watch = watchFlushes(live)
  t.after(() => {
    watch.end()
    rmSync(folder, { recursive: true, force: true })
  })
  return { live, left, watch }
}

const COMMITS = 50

test('with flush, each commit flushes the write-ahead log once', async (t) => {
  const { live, watch } = folders(t)
  const database = await openPglite({ folder: join(live, 'database'), flush: true })
  t.after(() => database.close())
  await database.script('create table entry (id integer)')
  const before = watch.flushes()
  for (let id = 0; id < COMMITS; id += 1) {
    await database.transaction((tx) => tx.query('insert into entry values ($1)', [id]))
  }
  const flushes = watch.flushes() - before
  // The log may continue in a new file, which takes a few additional flushes.
  assert.ok(flushes >= COMMITS && flushes <= COMMITS + 10, `${flushes} flushes`)
})

test('without flush, nothing is flushed', async (t) => {
  const { live, watch } = folders(t)
  const database = await openPglite({ folder: join(live, 'database') })
  t.after(() => database.close())
  await database.script('create table entry (id integer)')
  assert.equal(watch.flushes(), 0)
})

test('with flush, every commit survives a power cut, across checkpoints and log files', async (t) => {
  const { live, left, watch } = folders(t)
  const database = await openPglite({ folder: join(live, 'database'), flush: true })
  t.after(() => database.close())
  await database.script('create table entry (id integer, text text)')
  const insert = (id: number) => database.query("insert into entry values ($1, 'first')", [id])
  await insert(1)
  await database.query('select pg_switch_wal()')
  await insert(2)
  await database.script('checkpoint')
  await insert(3)
  await database.script('create table later as select * from entry')
  watch.cutPower(left)

  const again = await openPglite({ folder: join(left, 'database') })
  t.after(() => again.close())
  const ids = async (table: string) =>
    (await again.query<{ id: number }>(`select id from ${table} order by id`)).map(({ id }) => id)
  assert.deepEqual(await ids('entry'), [1, 2, 3])
  assert.deepEqual(await ids('later'), [1, 2, 3])
})
