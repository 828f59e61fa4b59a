import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cp, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { openPglite } from '../../platform/pglite/pglite.ts'
import { assertInvariantsHold } from '../../tests/e2e/invariants.ts'
import { type RunningProgram, startProgram, temporaryFolder } from '../../tests/e2e/program.ts'
import {
  type Customer,
  tradeAfter,
  tradeBefore,
  type View,
  viewOf,
} from '../../tests/support/restored-traffic.ts'
import { keepSchema, putSchemaBack } from '../../tests/support/schema-snapshot.ts'
import { type Difference, type Result, SERVICES, type Service } from './differences.ts'
import { type ReconcileOptions, reconcile } from './reconcile.ts'

const { folder, remove } = await temporaryFolder()
after(remove)
const origin = join(folder, 'origin')
const { customers, newcomers, views } = await trade()

describe('databases, none of which was restored,', () => {
  test('have no differences', async () => {
    const { code, output } = await run('--data', origin)
    assert.deepEqual([code, output], [0, 'Nothing differs.\n'])
  })
})

describe('a billing database restored to an earlier time', () => {
  test('gets every deposit, payment and refund back, in the order of the ledger', async (t) => {
    const data = await restored('billing')
    const listed = await run('--data', data)
    assert.equal(listed.code, 1)
    for (const kind of ['ACCOUNT', 'DEPOSIT', 'PAYMENT', 'REFUND', 'VOID']) {
      assert.match(listed.output, new RegExp(`^${kind}_MISSING  \\d+ `, 'm'))
    }
    assert.doesNotMatch(listed.output, /^(ORDER|MESSAGE)_|CONFLICT|UNREADABLE/m)
    assert.match(listed.output, new RegExp(`^  ${newcomers[0]!.account}$`, 'm'))
    const repaired = await run('--data', data, '--restored', 'billing', '--apply')
    assert.equal(repaired.code, 0, repaired.output)
    assert.match(repaired.output, /remaining: 0\.$/m)
    assert.deepEqual(await compare(data), [])

    const program = await startProgram({ DATA_DIR: data })
    t.after(() => program.close())
    await assertInvariantsHold(program)
    assert.deepEqual(await allViews(program), views)
  })
})

describe('an order database restored to an earlier time', () => {
  test('gets its orders settled, and payments for forgotten orders are refunded', async (t) => {
    const data = await restored('orders')
    const kinds = ['ORDER_FORGOTTEN', 'ORDER_NOT_CANCELED', 'ORDER_UNSETTLED']
    assert.deepEqual(kindsOf(await compare(data)), kinds)
    await assertRepaired(data, 'orders')

    const program = await startProgram({ DATA_DIR: data })
    t.after(() => program.close())
    await assertInvariantsHold(program)
    for (const { account } of [...customers, ...newcomers]) {
      const { balance, orders } = views.get(account)!
      const now = await viewOf(program, account)
      const known = new Set(now.orders.map(({ id }) => id))
      assert.deepEqual(
        now.orders,
        orders.filter(({ id }) => known.has(id)),
      )
      const forgotten = orders.filter(({ id, state }) => state === 'APPROVED' && !known.has(id))
      assert.equal(forgotten.length, 1)
      const refund = now.entries.at(-1)!
      assert.match(refund, /^REFUND /)
      assert.equal(now.balance, balance + Number(refund.slice('REFUND '.length)))
    }
  })
})

describe('a notification database restored to an earlier time', () => {
  test('gets every message back, and the letters are sent', async (t) => {
    const data = await restored('notification')
    assert.deepEqual(kindsOf(await compare(data)), ['MESSAGE_MISSING'])
    await assertRepaired(data, 'notification')

    const program = await startProgram({ DATA_DIR: data })
    t.after(() => program.close())
    // The letters of the missing messages were sent before the restore, and stay in the Maildir.
    await assertInvariantsHold(program, ({ sentence }) => sentence === 'belongs to no message')
    const sorted = (all: ReadonlyMap<string, View>) =>
      new Map([...all].map(([id, view]) => [id, { ...view, texts: view.texts.toSorted() }]))
    assert.deepEqual(sorted(await allViews(program)), sorted(views))
  })
})

test('a deposit whose text was removed, and the payments that it covered, are listed with their amounts', async () => {
  const data = await restored('billing')
  const { account } = newcomers[0]!
  const database = await openPglite({ folder: join(data, 'database') })
  await database.query(
    `update notification.message set text = '', deleted = now() where account_id = $1`,
    [account],
  )
  await database.close()
  const json = join(folder, 'differences.jsonl')
  const { code, output } = await run('--data', data, '--apply', '--json', json)
  assert.equal(code, 1)
  assert.match(output, /remaining: 2\.$/m)
  const lines = (await readFile(json, 'utf8')).trim().split('\n')
  const remaining = lines
    .map((line) => JSON.parse(line))
    .filter(({ result }) => result !== 'repaired')
  assert.deepEqual(
    remaining.map(({ kind, accountId, amount, why }) => ({ kind, accountId, amount, why })),
    [
      { kind: 'DEPOSIT_UNREADABLE', accountId: account, amount: undefined, why: undefined },
      {
        kind: 'PAYMENT_MISSING',
        accountId: account,
        amount: 130,
        why: `account ${account} has 0 of 130`,
      },
    ],
  )
})

test('with --restored, only differences that the restore of that database explains are listed', async () => {
  const data = await restored('orders')
  assert.deepEqual(kindsOf(await compare(data, { restored: 'billing', apply: true })), [])
  assert.deepEqual(kindsOf(await compare(data, { restored: 'notification' })), [])
  assert.equal(kindsOf(await compare(data, { restored: 'orders' })).length, 3)
})

test('rows that last changed before --since are skipped', async () => {
  const data = await restored('billing')
  assert.deepEqual(kindsOf(await compare(data, { since: new Date(Date.now() + 60_000) })), [])
})

test('reconcile rejects wrong options, and prints its usage', async () => {
  for (const args of [
    ['--orders', 'postgres://127.0.0.1/orders'],
    ['--restored', 'order'],
    ['--since', 'yesterday'],
  ]) {
    const { code, output } = await run(...args)
    assert.match(output, /npm run reconcile --/)
    assert.equal(code, 2)
  }
})

/** Runs a program with some orders, copies the rows of each service halfway through, and stops the program. */
async function trade() {
  const program = await startProgram({ DATA_DIR: origin })
  const { orders: database } = program.databases
  const before = await tradeBefore(program)
  for (const service of SERVICES) await keepSchema(database, service)
  const all = await tradeAfter(program, before)
  await assertInvariantsHold(program)
  const kept = { customers: before, newcomers: all.slice(before.length) }
  const seen = await viewsOf(program, all)
  await program.close()
  return { ...kept, views: seen }
}

async function viewsOf(program: RunningProgram, all: readonly Customer[]) {
  const seen = new Map<string, View>()
  for (const { account } of all) seen.set(account, await viewOf(program, account))
  return seen
}

const allViews = (program: RunningProgram) => viewsOf(program, [...customers, ...newcomers])

let copies = 0

/** A copy of the data folder in which one service has the rows that were copied halfway through. */
async function restored(service: Service): Promise<string> {
  copies += 1
  const data = join(folder, `restored-${copies}`)
  await cp(origin, data, { recursive: true })
  const database = await openPglite({ folder: join(data, 'database') })
  await putSchemaBack(database, service)
  await database.close()
  return data
}

async function compare(data: string, options: Partial<ReconcileOptions> = {}) {
  const database = await openPglite({ folder: join(data, 'database') })
  const differences: (Difference & { result: Result['kind'] })[] = []
  await reconcile({
    databases: { orders: database, billing: database, notification: database },
    bus: database,
    runtime: systemRuntime,
    since: null,
    apply: false,
    resendAfterMs: 5_000,
    deadlineMs: 900_000,
    lettersPerHour: 10,
    report: (difference, { kind: result }) => differences.push({ ...difference, result }),
    ...options,
  }).finally(() => database.close())
  return differences
}

const kindsOf = (differences: readonly Difference[]) =>
  [...new Set(differences.map(({ kind }) => kind))].sort()

async function assertRepaired(data: string, service: Service): Promise<void> {
  const repaired = await compare(data, { restored: service, apply: true })
  assert.deepEqual(
    repaired.filter(({ result }) => result !== 'repaired'),
    [],
  )
  assert.deepEqual(await compare(data), [])
}

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url))

function run(...args: string[]) {
  return new Promise<{ code: number; output: string }>((resolve) => {
    execFile(process.execPath, [MAIN, ...args], (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr })
    })
  })
}
