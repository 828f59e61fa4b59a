import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'
import type { ServiceName } from '../../tools/stack/options.ts'
import { accountSql } from './pgbench.ts'
import { PRICE_MINOR } from './programs/recording.ts'

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

export const accountIds = (count: number) =>
  Array.from({ length: count }, (_, index) => accountId(index + 1))

/** Empties all tables of the flow in these databases, and puts so many rich accounts into billing's. */
export async function openBooks(urls: Urls, accounts: number): Promise<void> {
  for (const url of new Set(Object.values(urls))) {
    await inDatabase(url, async (client) => {
      const { rows } = await client.query<{ name: string }>(
        `select format('%I.%I', schemaname, tablename) as name from pg_tables
         where schemaname in ('orders', 'billing', 'notification')
           and tablename not in ('migration', 'relay_member', 'relay_lane')`,
      )
      await truncate(client, rows.map(({ name }) => name).join(', '))
    })
  }
  await inDatabase(urls.billing, async (client) => {
    await insertAccounts(client, accounts)
    // What the round before has left to be written would else be written in the next one.
    await client.query('checkpoint')
  })
}

/** A service that looks at two of the tables at this moment may wait in a circle with us. */
async function truncate(client: Client, tables: string, tries = 5): Promise<void> {
  try {
    await client.query(`truncate ${tables}`)
  } catch (error) {
    if ((error as { code?: string }).code !== '40P01' || tries === 1) throw error
    await truncate(client, tables, tries - 1)
  }
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

/** How far the books are: what comes later is counted from here. */
export interface Mark {
  readonly orderNumber: bigint
  readonly messageSeq: bigint
  readonly payments: bigint
  readonly balancesMinor: bigint
}

export async function markBooks(urls: Urls): Promise<Mark> {
  const [orderNumber, messageSeq, payments, balancesMinor] = await Promise.all([
    numberIn(urls.order, 'select coalesce(max(order_number), 0) as n from orders.orders'),
    numberIn(urls.notification, 'select coalesce(max(seq), 0) as n from notification.message'),
    numberIn(urls.billing, `select count(*) as n from billing.payment where state = 'PAID'`),
    numberIn(urls.billing, 'select coalesce(sum(balance_minor), 0) as n from billing.account'),
  ])
  return { orderNumber, messageSeq, payments, balancesMinor }
}

const numberIn = (url: string, statement: string): Promise<bigint> =>
  inDatabase(url, async (client) => BigInt((await client.query(statement)).rows[0].n))

/** Resolves as soon as no order is pending and each of so many has its message. */
export async function settled(
  urls: Urls,
  { messageSeq }: Mark,
  orders: number,
  limitMs: number,
): Promise<void> {
  const deadlineMs = performance.now() + limitMs
  const noneIsPending = 'select not exists (select from orders.watch) as is_so'
  const allAreTold = `select count(*) >= ${orders} as is_so from notification.message
    where seq > ${messageSeq}`
  await becomesSo(urls.order, noneIsPending, deadlineMs)
  await becomesSo(urls.notification, allAreTold, deadlineMs)
}

/** Resolves as soon as no order is pending that was placed before that time. */
export async function settledUntil(urls: Urls, time: Date, limitMs: number): Promise<void> {
  const noneIsPending = `select not exists (
      select from orders.watch join orders.orders on id = order_id
      where created < '${time.toISOString()}') as is_so`
  await becomesSo(urls.order, noneIsPending, performance.now() + limitMs)
}

async function becomesSo(url: string, statement: string, deadlineMs: number): Promise<void> {
  await inDatabase(url, async (client) => {
    while (!(await client.query<{ is_so: boolean }>(statement)).rows[0]!.is_so) {
      assert.ok(performance.now() < deadlineMs, `it did not become so in time: ${statement}`)
      await sleep(LOOK_EVERY_MS)
    }
  })
}

/** A round counts only if all that it claims is in the books, once. */
export async function assertBooks(urls: Urls, before: Mark, orders: number): Promise<void> {
  const after = await markBooks(urls)
  const approved = `select count(*) as n from orders.orders
    where state = 'APPROVED' and order_number > ${before.orderNumber}`
  const told = `select count(*) as n from notification.message where seq > ${before.messageSeq}`
  const seen = {
    approved: await numberIn(urls.order, approved),
    paid: after.payments - before.payments,
    takenMinor: before.balancesMinor - after.balancesMinor,
    told: await numberIn(urls.notification, told),
  }
  const count = BigInt(orders)
  const claimed = { approved: count, paid: count, takenMinor: count * PRICE_MINOR, told: count }
  assert.deepEqual(seen, claimed)
}
