import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { openPglite } from '../../platform/pglite/pglite.ts'
import { assertInvariantsHold } from '../../tests/e2e/invariants.ts'
import { startProgram, temporaryFolder } from '../../tests/e2e/program.ts'

const { folder, remove } = await temporaryFolder()
after(remove)
const data = join(folder, 'data')
const trifold = await startProgram({ DATA_DIR: data })
const account = await trifold.fundedAccount(100)
await trifold.order(account, { style: 'http' })
await assertInvariantsHold(trifold)

test('the audit rejects a folder that a program is using', async () => {
  const { code, stderr } = await run(['--data', data])
  assert.match(stderr, /in use by another Trifold process/)
  assert.equal(code, 2)
  await trifold.close()
})

test('the audit finds no violation in a stopped program, and prints what was checked', async () => {
  const { code, stdout } = await run(['--settled'], { DATA_DIR: data })
  assert.match(stdout, /^I1 +ok +.*\(2 transfers, 1 accounts\)$/m)
  assert.match(stdout, /^I7 +ok +.*\(2 messages, 0 letters\)$/m)
  assert.match(stdout, /^No violations/m)
  assert.equal(code, 0)
})

test('the audit prints each violation, up to a hundred', async () => {
  const database = await openPglite({ folder: join(data, 'database') })
  await database.query('update billing.account set balance_minor = balance_minor + 100')
  await database.query(
    `insert into notification.message (id, event_id, account_id, event, text, created)
     select gen_random_uuid(), $1 || n || '/DEPOSIT_ACCEPTED', gen_random_uuid(),
       'DEPOSIT_ACCEPTED', '', now() from generate_series(1, 150) n`,
    ['none-'],
  )
  await database.close()
  const { code, stdout } = await run(['--data', data])
  const sentence = 'has a balance of 36, but its entries sum to 35'
  assert.match(stdout, new RegExp(`^I1  account ${account} ${sentence}$`, 'm'))
  assert.match(stdout, /^I5 +150 +/m)
  assert.match(stdout, /^\.\.\. and 52 more$/m)
  assert.equal(code, 1)
})

test('the audit rejects a folder without a database, and does not create it', async () => {
  const missing = join(folder, 'missing')
  const { code, stderr } = await run(['--data', missing])
  assert.match(stderr, /is not a data folder/)
  assert.equal(code, 2)
  assert.equal(existsSync(missing), false)
})

test('the audit rejects wrong options, and prints its usage', async () => {
  for (const args of [
    ['--dada', data],
    ['--orders', 'postgres://127.0.0.1/orders'],
    ['--data', data, '--orders', 'postgres://127.0.0.1/orders'],
  ]) {
    const { code, stderr } = await run(args)
    assert.match(stderr, /npm run audit --/)
    assert.equal(code, 2)
  }
})

test('the audit fails if a database cannot be reached', async () => {
  const url = 'postgres://127.0.0.1:1/none'
  const { code, stderr } = await run(['--orders', url, '--billing', url, '--notification', url])
  assert.match(stderr, /cannot connect to PostgreSQL/)
  assert.equal(code, 2)
})

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url))

function run(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { cwd: tmpdir(), env }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr })
    })
  })
}
