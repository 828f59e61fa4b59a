import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { describe, type TestContext, test } from 'node:test'
import { describeDatabase } from '../database/database.conformance.ts'
import { openPglite } from './pglite.ts'

describeDatabase('PGlite', () => openPglite())

describe('PGlite in a folder', () => {
  const temporaryFolder = (t: TestContext) => {
    const folder = mkdtempSync(join(tmpdir(), 'trifold-pglite-'))
    t.after(() => rmSync(folder, { recursive: true, force: true }))
    return folder
  }

  test('keeps its data when it is opened again', async (t) => {
    const folder = join(temporaryFolder(t), 'data')
    const first = await openPglite({ folder })
    await first.script('create table kept (id integer); insert into kept values (1)')
    await first.close()
    const second = await openPglite({ folder })
    t.after(() => second.close())
    assert.deepEqual(await second.query('select id from kept'), [{ id: 1 }])
  })

  test('keeps everything committed when its process is killed', async (t) => {
    const folder = temporaryFolder(t)
    const lastReported = await commitUntilKilled(folder, 300)
    const database = await openPglite({ folder })
    t.after(() => database.close())
    const [kept] = await database.query<{ count: bigint; last: number }>(
      'select count(*) as count, max(id) as last from kept',
    )
    assert.ok(kept!.last >= lastReported, `${kept!.last} kept of ${lastReported}`)
    assert.equal(kept!.count, BigInt(kept!.last) * 2n)
    assert.deepEqual(await database.query('insert into kept values (0, 0) returning id'), [
      { id: 0 },
    ])
  })

  test('starts again after an interrupted first start', async (t) => {
    const folder = temporaryFolder(t)
    mkdirSync(join(folder, 'pgdata.new'))
    writeFileSync(join(folder, 'pgdata.new', 'PG_VERSION'), '18')
    const database = await openPglite({ folder })
    t.after(() => database.close())
    assert.deepEqual(await database.query('select 1 as one'), [{ one: 1 }])
  })

  test('rejects a folder in use, and releases the folder when the database is closed or cannot start', async (t) => {
    const folder = temporaryFolder(t)
    const database = await openPglite({ folder })
    await assert.rejects(openPglite({ folder }), /in use by another Trifold process/)
    await database.close()
    writeFileSync(join(folder, 'pgdata', 'PG_VERSION'), '9.1')
    await assert.rejects(openPglite({ folder }), /PGlite cannot start: .*version/s)
    await assert.rejects(openPglite({ folder }), /PGlite cannot start/)
  })

  test('does not grow with deleted rows or with the write-ahead log', async (t) => {
    const folder = temporaryFolder(t)
    const database = await openPglite({ folder, upkeepEveryMs: 0 })
    t.after(() => database.close())
    await database.script('create table passing (id bigserial primary key, body text)')
    for (let round = 0; round < 60; round++) {
      await database.query(`
        insert into passing (body) select repeat('x', 1000) from generate_series(1, 1000)`)
      await database.query('delete from passing')
    }
    const [grown] = await database.query<{ table: bigint; log: bigint }>(`
      select pg_total_relation_size('passing') as table,
        pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn)::bigint as log
      from pg_control_checkpoint()`)
    assert.ok(grown!.table < 5_000_000n, `60 rounds of 1 MB left ${grown!.table} bytes of table`)
    assert.ok(grown!.log < 40_000_000n, `and ${grown!.log} bytes of log`)
  })
})

/** Runs a process that commits pairs of rows, and kills it after it has reported a number of pairs. */
async function commitUntilKilled(folder: string, pairs: number): Promise<number> {
  const module = new URL('./pglite.ts', import.meta.url).href
  const script = `
    import { openPglite } from ${JSON.stringify(module)}
    import { writeSync } from 'node:fs'
    const database = await openPglite({ folder: ${JSON.stringify(folder)} })
    await database.script('create table kept (id integer, half integer)')
    for (let id = 1; ; id++) {
      await database.transaction(async (tx) => {
        await tx.query('insert into kept values ($1, 1)', [id])
        await tx.query('insert into kept values ($1, 2)', [id])
      })
      writeSync(1, id + '\\n')
    }`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let last = 0
  for await (const line of createInterface({ input: child.stdout })) {
    last = Number(line)
    if (last === pairs) child.kill('SIGKILL')
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  assert.equal(child.signalCode, 'SIGKILL')
  return last
}
