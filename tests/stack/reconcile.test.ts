import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { assertInvariantsHold } from '../e2e/invariants.ts'
import { temporaryFolder } from '../e2e/program.ts'
import { startOnStack } from '../e2e/stack-program.ts'
import { type Customer, tradeAfter, tradeBefore, viewOf } from '../support/restored-traffic.ts'

const run = promisify(execFile)
const { folder, remove } = await temporaryFolder()
const program = await startOnStack(folder, {})
const { databaseUrls: urls } = program
after(async () => {
  await program.close()
  await remove()
})

test("the billing database, restored from an earlier dump, is reconciled without changing Kafka's offsets", async () => {
  const customers = await tradeBefore(program)
  const dump = join(folder, 'billing.dump')
  await run('pg_dump', ['-Fc', '-f', dump, urls.billing])
  const all = await tradeAfter(program, customers)
  await assertInvariantsHold(program)
  const views = await viewsOf(all)

  await program.lab.billing.stop()
  await recreateDatabase(urls.billing)
  await run('pg_restore', ['--exit-on-error', '-d', urls.billing, dump])
  const listed = await reconcile('--restored', 'billing')
  assert.equal(listed.code, 1, listed.output)
  assert.match(listed.output, /^PAYMENT_MISSING {2}\d+ /m)
  const repaired = await reconcile('--restored', 'billing', '--apply')
  assert.equal(repaired.code, 0, repaired.output)
  await program.lab.billing.start()

  await assertInvariantsHold(program)
  assert.deepEqual(await viewsOf(all), views)
  assert.deepEqual(await reconcile(), { code: 0, output: 'Nothing differs.\n' })
})

async function viewsOf(all: readonly Customer[]) {
  const views = []
  for (const { account } of all) views.push(await viewOf(program, account))
  return views
}

async function recreateDatabase(url: string): Promise<void> {
  const name = new URL(url).pathname.slice(1)
  const server = await openPostgres({ url: urls.order, maxConnections: 1 })
  try {
    await server.query(`drop database ${name} with (force)`)
    await server.query(`create database ${name} template template0`)
  } finally {
    await server.close()
  }
}

const MAIN = fileURLToPath(new URL('../../apps/reconcile/main.ts', import.meta.url))

function reconcile(...options: string[]) {
  const databases = ['--orders', urls.order, '--billing', urls.billing]
  const args = [MAIN, ...databases, '--notification', urls.notification, ...options]
  return new Promise<{ code: number; output: string }>((resolve) => {
    execFile(process.execPath, args, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr })
    })
  })
}
