import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'
import type { ServiceName } from '../../tools/stack/options.ts'
import { accountSql } from './pgbench.ts'
import { PRICE_MINOR } from './programs/recording.ts'

/** Opens the books before a round, and checks them after it. */
export type Urls = Readonly<Record<ServiceName, string>>

/** Far more than the orders of any round cost. */
const BALANCE_MINOR = 10n ** 13n
const POLL_MS = 50

/** Runs `work` with a separate connection. */
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

/** The id of the n-th account, counted from 1. The references use the same ids. */
export function accountId(n: number): string {
  return n
    .toString(16)
    .padStart(32, '0')
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

export const accountIds = (count: number) =>
  Array.from({ length: count }, (_, index) => accountId(index + 1))

/**
 * Empties the tables of the flow in these databases, and inserts `accounts` rich accounts into the billing
 * database.
 */
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
    // Without a checkpoint, PostgreSQL would write the dirty pages of the previous round during the next one.
    await client.query('checkpoint')
  })
}

/** Retries after a deadlock with a service that reads two of these tables at that moment. */
async function truncate(client: Client, tables: string, tries = 5): Promise<void> {
  try {
    await client.query(`truncate ${tables}`)
  } catch (error) {
    if ((error as { code?: string }).code !== '40P01' || tries === 1) throw error
    await truncate(client, tables, tries - 1)
  }
}

/** Inserts accounts, each with the deposit and the transfer from which its balance results. */
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

/** A position in the books. Later entries are counted from it. */
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

/** Resolves as soon as no order is pending and `orders` notices were written since the mark. */
export async function settled(
  urls: Urls,
  { messageSeq }: Mark,
  orders: number,
  limitMs: number,
): Promise<void> {
  const deadlineMs = performance.now() + limitMs
  const nonePending = 'select not exists (select from orders.watch) as is_true'
  const allNotified = `select count(*) >= ${orders} as is_true from notification.message
    where seq > ${messageSeq}`
  await becomesTrue(urls.order, nonePending, deadlineMs)
  await becomesTrue(urls.notification, allNotified, deadlineMs)
}

/** Resolves as soon as no order that was placed before `time` is pending. */
export async function settledUntil(urls: Urls, time: Date, limitMs: number): Promise<void> {
  const nonePending = `select not exists (
      select from orders.watch join orders.orders on id = order_id
      where created < '${time.toISOString()}') as is_true`
  await becomesTrue(urls.order, nonePending, performance.now() + limitMs)
}

async function becomesTrue(url: string, statement: string, deadlineMs: number): Promise<void> {
  await inDatabase(url, async (client) => {
    while (!(await client.query<{ is_true: boolean }>(statement)).rows[0]!.is_true) {
      assert.ok(performance.now() < deadlineMs, `did not become true in time: ${statement}`)
      await sleep(POLL_MS)
    }
  })
}

/** A round counts only if each of its orders is in the books exactly once. */
export async function assertBooks(urls: Urls, before: Mark, orders: number): Promise<void> {
  const after = await markBooks(urls)
  const approved = `select count(*) as n from orders.orders
    where state = 'APPROVED' and order_number > ${before.orderNumber}`
  const notices = `select count(*) as n from notification.message where seq > ${before.messageSeq}`
  const actual = {
    approved: await numberIn(urls.order, approved),
    paid: after.payments - before.payments,
    takenMinor: before.balancesMinor - after.balancesMinor,
    notices: await numberIn(urls.notification, notices),
  }
  const count = BigInt(orders)
  const claimed = { approved: count, paid: count, takenMinor: count * PRICE_MINOR, notices: count }
  assert.deepEqual(actual, claimed)
}
