import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chown, mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { until } from '../../platform/async/until.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { root } from '../../tools/repository-files.ts'
import { freePorts } from '../../tools/servers/ports.ts'
import { databaseUrl, makeDatabases, startPostgres } from '../../tools/servers/postgres.ts'
import { temporaryFolder } from '../e2e/program.ts'

/** Runs the commands of docs/operations.md unchanged, on the test's own folders and ports. */
const LIMIT_MS = 60_000
const { folder, remove } = await temporaryFolder()
const cluster = join(folder, 'cluster')
const port = await freePorts(25_700, 2)
const postgres = await startPostgres({
  folder,
  port,
  maxConnections: 20,
  logFile: join(folder, 'postgres.log'),
})
const { uid, gid } = await stat(cluster)
for (const name of ['archive', 'backups', 'home']) {
  await mkdir(join(folder, name))
  await chown(join(folder, name), uid, gid)
}
after(async () => {
  await shell(`pg_ctl -D ${folder}/home/recovered -m immediate stop`).catch(() => undefined)
  await postgres.close()
  await remove()
})

test('the guide restores one database to a point in time, and leaves the server unchanged', async () => {
  await makeDatabases(postgres.url, ['billing'])
  await writeFile(join(cluster, 'postgresql.conf'), await fence('archive_command'), { flag: 'a' })
  await postgres.server.stop()
  await postgres.server.start()
  const [first] = await inBilling('create table entry (id integer)', insert(1))
  assert.deepEqual(first, [])
  await shell(await fence('pg_basebackup'))
  const [, [moment] = []] = await inBilling(insert(2), 'select now()::text as time')
  await inBilling(insert(3))
  const switched = await psql('select pg_walfile_name(pg_switch_wal())')
  await untilTrue(() => psql(`select last_archived_wal >= '${switched}' from pg_stat_archiver`))

  const recovery = await fence('recovery_target_time')
  await shell(recovery.replace(/(recovery_target_time = )'.*'/, `$1'${(moment as Moment).time}'`))
  await untilTrue(() => psql('select not pg_is_in_recovery()', port + 1))
  await shell(await fence('pg_restore'))

  const [rows] = await inBilling('select id from entry order by id')
  assert.deepEqual(rows, [{ id: 1 }, { id: 2 }])
})

interface Moment {
  readonly time: string
}

const insert = (id: number) => `insert into entry values (${id})`

/** Runs each statement in its own transaction; resolves with the rows of each. */
async function inBilling(...statements: string[]): Promise<unknown[][]> {
  const database = await openPostgres({
    url: databaseUrl(postgres.url, 'billing'),
    maxConnections: 1,
  })
  const rows: unknown[][] = []
  for (const statement of statements) rows.push(await database.query(statement))
  await database.close()
  return rows
}

const psql = async (statement: string, at = port) =>
  (await shell(`psql -h 127.0.0.1 -p ${at} -U postgres -Atc "${statement}"`)).trim()

const untilTrue = (ask: () => Promise<string>) =>
  until(async () => (await ask()) === 't', { limitMs: LIMIT_MS })

/** The first block of commands or settings that contains the word. */
async function fence(word: string): Promise<string> {
  const guide = await readFile(join(root, 'docs/operations.md'), 'utf8')
  const blocks = [...guide.matchAll(/^```(?:sh|ini)\n(.*?)^```$/gms)].map(([, text]) => text!)
  const block = blocks.find((text) => text.includes(word))
  assert.ok(block, word)
  return block
    .replaceAll('/archive/', `${folder}/archive/`)
    .replaceAll('/backups/', `${folder}/backups/`)
    .replaceAll('/recovered', `${folder}/home/recovered`)
    .replaceAll('DBHOST', '127.0.0.1')
    .replaceAll('5433', String(port + 1))
}

/** Runs a command as the server's user, with the programs of its version. */
async function shell(commands: string): Promise<string> {
  const [program = ''] = (await readFile(join(cluster, 'postmaster.opts'), 'utf8')).split(' ')
  const { PATH } = process.env
  const env = {
    PATH: `${dirname(program)}:${PATH}`,
    PGPASSWORD: new URL(postgres.url).password,
    PGPORT: String(port),
  }
  const options = { cwd: folder, env, uid, gid }
  const { stdout } = await promisify(execFile)('bash', ['-ec', commands], options)
  return stdout
}
