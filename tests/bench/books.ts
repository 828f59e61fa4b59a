import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'
import type { ServiceName } from '../../tools/stack-options.ts'
import { accountSql } from './pgbench.ts'
import { PRICE_MINOR } from './recording.ts'

/** What is in the databases before a round, and what has to be in them after it. */
type Urls = Readonly<Record<ServiceName, string>>

/** Far more than any round takes. */
const BALANCE_MINOR = 10n ** 13n
const LOOK_EVERY_MS = 50

/** One connection for as long as the work needs it. */
export async function inDatabase<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** The id of the n-th account, counted from 1, as the references have it too. */
export function accountId(n: number): string {
  return n
    .toString(16)
    .padStart(32, '0')
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

/** Empties all tables of the flow in these databases, and puts so many rich accounts into billing's. */
export async function openBooks(urls: Urls, accounts: number): Promise<void> {
  for (const url of new Set(Object.values(urls))) {
    await inDatabase(url, async (client) => {
      const { rows } = await client.query<{ name: string }>(
        `select format('%I.%I', schemaname, tablename) as name from pg_tables
         where schemaname in ('orders', 'billing', 'notification')
           and tablename not in ('migration', 'relay_member', 'relay_lane')`,
      )
      await client.query(`truncate ${rows.map(({ name }) => name).join(', ')}`)
    })
  }
  await inDatabase(urls.billing, async (client) => {
    await insertAccounts(client, accounts)
    // What the round before has left to be written would else be written in the next one.
    await client.query('checkpoint')
  })
}

/** Each with the deposit and the movement that its balance comes from. */
async function insertAccounts(client: Client, accounts: number): Promise<void> {
  const ids = `select n, ${accountSql('n')}::uuid as id from generate_series(1, ${accounts}) as n`
  await client.query(
    `insert into billing.account (id, balance_minor, version, pending_minor, created, updated)
     select id, ${BALANCE_MINOR}, 1, 0, now(), now() from (${ids}) as a`,
  )
  await client.query(
    `insert into billing.deposit (id, account_id, amount_minor, state, style, ask_at, created)
     select 'bench-' || n, id, ${BALANCE_MINOR}, 'APPLIED', 'http', now(), now() from (${ids}) as a`,
  )
  await client.query(
    `insert into billing.transfer (account_id, version, kind, debit, credit, amount_minor,
       balance_after_minor, deposit_id, created)
     select id, 1, 'DEPOSIT', 'cash', 'customer', ${BALANCE_MINOR}, ${BALANCE_MINOR}, 'bench-' || n,
       now()
     from (${ids}) as a`,
  )
}

/** Resolves as soon as no order is pending and each of so many has its message. */
export async function settled(urls: Urls, orders: number, limitMs: number): Promise<void> {
  await inDatabase(urls.order, (order) =>
    inDatabase(urls.notification, async (notification) => {
      const deadline = performance.now() + limitMs
      const pending = () => exists(order, 'select exists (select from orders.watch) as is_so')
      const written = () =>
        exists(notification, `select count(*) >= ${orders} as is_so from notification.message`)
      while ((await pending()) || !(await written())) {
        assert.ok(performance.now() < deadline, `the orders do not settle within ${limitMs} ms`)
        await sleep(LOOK_EVERY_MS)
      }
    }),
  )
}

async function exists(client: Client, statement: string): Promise<boolean> {
  const { rows } = await client.query<{ is_so: boolean }>(statement)
  return rows[0]!.is_so
}

/** A round counts only if all that it claims is in the books, once. */
export async function assertBooks(urls: Urls, orders: number, accounts: number): Promise<void> {
  const one = (url: string, statement: string) =>
    inDatabase(url, async (client) => (await client.query<{ n: string }>(statement)).rows[0]!.n)
  const approved = `select count(*) as n from orders.orders where state = 'APPROVED'`
  assert.equal(Number(await one(urls.order, approved)), orders, 'orders approved')
  const paid = `select count(*) as n from billing.payment where state = 'PAID'`
  assert.equal(Number(await one(urls.billing, paid)), orders, 'payments')
  const taken = `select ${BALANCE_MINOR} * ${accounts} - sum(balance_minor) as n from billing.account`
  assert.equal(BigInt(await one(urls.billing, taken)), PRICE_MINOR * BigInt(orders), 'money taken')
  const told = 'select count(*) as n from notification.message'
  assert.equal(Number(await one(urls.notification, told)), orders, 'messages')
}
