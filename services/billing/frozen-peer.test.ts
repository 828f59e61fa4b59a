import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { startBilling } from '../../tests/support/billing-service.ts'
import { databaseUrl } from '../../tools/servers/postgres.ts'

const serverUrl = process.env.TEST_DATABASE_URL
const skip = serverUrl ? false : 'TEST_DATABASE_URL names no server, and PGlite has one process'

/** A process that locks the relay's lanes and an account, reports that it has done so, and continues on command. */
const PEER = `
  import { once } from 'node:events'
  const { openPostgres } = await import(process.env.POSTGRES_MODULE)
  const database = await openPostgres({ url: process.env.URL })
  const ended = database.transaction(async (tx) => {
    await tx.query('select lane from billing.relay_lane for update')
    await tx.query('update billing.account set balance_minor = balance_minor + 1 where id = $1', [process.env.ACCOUNT])
    console.log('locked')
    await once(process.stdin, 'data')
    await tx.query('update billing.account set balance_minor = balance_minor + 1 where id = $1', [process.env.ACCOUNT])
  })
  await ended.then(() => console.log('committed'), (error) => console.log(error.kind))
  await database.close()
  process.exit()
`

test('an instance that is frozen in a transaction delays deposits and deliveries by only a few seconds', {
  skip,
}, async (t) => {
  const { database, call, others, openAccount, balanceOf, entriesOf } = await startBilling()
  const accountId = await openAccount(100)
  const [row] = await database.query<{ name: string }>('select current_database() as name')
  const peer = startPeer(t, databaseUrl(serverUrl!, row!.name), accountId)
  assert.equal(await peer.says(), 'locked')
  peer.process.kill('SIGSTOP')
  const frozenAt = performance.now()
  const path = `/billing/account/${accountId}?amount=7`
  const answer = await call('POST', path, { headers: { 'x-interaction-style': 'http' } })
  assert.deepEqual([answer.status, answer.body], [200, 107])
  assert.equal(others.about(accountId).length, 1)
  assert.ok(performance.now() - frozenAt < 15_000)
  peer.process.kill('SIGCONT')
  peer.process.stdin.write('go on\n')
  assert.equal(await peer.says(), 'unavailable')
  assert.equal(await balanceOf(accountId), 107)
  assert.equal((await entriesOf(accountId)).length, 2)
})

function startPeer(t: TestContext, url: string, accountId: string) {
  const env = {
    ...process.env,
    URL: url,
    ACCOUNT: accountId,
    POSTGRES_MODULE: new URL('../../platform/postgres/postgres.ts', import.meta.url).href,
  }
  const args = ['--input-type=module', '--eval', PEER]
  const peer = spawn(process.execPath, args, { env, stdio: ['pipe', 'pipe', 'inherit'] })
  t.after(() => peer.kill('SIGKILL'))
  const lines = createInterface(peer.stdout)
  return { process: peer, says: async () => (await once(lines, 'line'))[0] as string }
}
