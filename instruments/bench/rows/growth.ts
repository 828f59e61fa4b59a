import { escapeIdentifier } from 'pg'
import { STYLES } from '../../../contracts/style.ts'
import { databaseUrl } from '../../../tools/servers/postgres.ts'
import { SERVICES } from '../../../tools/stack/options.ts'
import type { BenchStack } from '../bench-stack.ts'
import { inDatabase } from '../books.ts'
import type { Bench, Contest, Pace, Run } from '../contest.ts'
import { accountSql } from '../pgbench.ts'
import { PRICE_MINOR } from '../programs/recording.ts'
import { type Flow, flowOf, openShop } from './flow.ts'

/**
 * Two sets of the same databases: one with a million settled orders, one empty. They swap names between the runs, while
 * the services are stopped. Each run begins with a load that warms the services up.
 */
export const GROWTH_BENCHES: readonly Bench[] = STYLES.map((style) => ({
  name: `growth ${style}`,
  ours: `orders settled, ${style}, with a million orders stored`,
  reference: `orders settled, ${style}, with none stored`,
  unit: 'orders/s',
  reach: 0.9,
  aim: 0.95,
  isLong: true,
  isWarm: true,
  open: (stack, pace) => openGrowth(stack, pace, flowOf(style)),
}))

const ORDERS = 1_000_000
const QUICK_ORDERS = 100_000
const WARM_UP_SECONDS = 3

async function openGrowth(stack: BenchStack, pace: Pace, flow: Flow): Promise<Contest> {
  const orders = pace.quick ? QUICK_ORDERS : ORDERS
  const shelf = shelve(stack)
  stack.say(`growth: storing ${orders} orders`)
  await stack.discardWork()
  await stack.openBooks(flow.accounts)
  await shelf.copy()
  await store(stack.urls, orders, flow)

  async function settle(): Promise<Run> {
    const shop = await openShop(stack)
    await shop.settle(flow, Math.min(WARM_UP_SECONDS, pace.seconds))
    const run = await shop.settle(flow, pace.seconds)
    await shop.close()
    await stack.rest()
    await stack.serve([])
    return run
  }

  return {
    ours: settle,
    async reference() {
      await shelf.swap()
      await stack.openBooks(flow.accounts)
      const run = await settle()
      await shelf.swap()
      return run
    },
    close: shelf.remove,
  }
}

/** A second set of the services' databases, under other names. */
function shelve({ urls }: BenchStack) {
  const server = databaseUrl(urls.reference, 'postgres')
  const names = SERVICES.map((service) => new URL(urls[service]).pathname.slice(1))
  const quoted = (name: string) => escapeIdentifier(name)
  const each = (statements: (name: string, other: string) => string[]) =>
    inDatabase(server, async (client) => {
      for (const name of names) {
        for (const statement of statements(quoted(name), quoted(`${name}_other`))) {
          await client.query(statement)
        }
      }
    })
  return {
    copy: () => each((name, other) => [`create database ${other} template ${name}`]),
    swap: () =>
      each((name, other) => [
        `alter database ${name} rename to between`,
        `alter database ${other} rename to ${name}`,
        `alter database between rename to ${other}`,
      ]),
    remove: () => each((_, other) => [`drop database ${other} with (force)`]),
  }
}

/** Stores approved, paid and announced orders, spread over the accounts, as the services would. */
async function store(urls: BenchStack['urls'], orders: number, flow: Flow): Promise<void> {
  const { accounts, style } = flow
  const order = `('f' || lpad(to_hex(n), 31, '0'))::uuid`
  const account = `${accountSql(`n % ${accounts} + 1`)}::uuid`
  const series = `generate_series(1, ${orders}) as n`
  await inDatabase(urls.order, async (client) => {
    await client.query(
      `insert into orders.orders (id, profile_id, product_quantity, price_minor, style, state,
         created, updated)
       select ${order}, ${account}, 1, ${PRICE_MINOR}, '${style}', 'APPROVED', now(), now()
       from ${series}`,
    )
    await client.query('vacuum analyze orders.orders')
  })
  await inDatabase(urls.billing, async (client) => {
    await client.query(
      `insert into billing.payment
         (order_id, id, account_id, amount_minor, state, style, created, updated)
       select ${order}, ${order}, ${account}, ${PRICE_MINOR}, 'PAID', '${style}', now(), now()
       from ${series}`,
    )
    // The first transfer of each account is its deposit.
    await client.query(
      `insert into billing.transfer (account_id, version, kind, debit, credit, amount_minor,
         balance_after_minor, order_id, created)
       select account.id, (n - 1) / ${accounts} + 2, 'PAYMENT', 'customer', 'revenue', ${PRICE_MINOR},
         balance_minor - ((n - 1) / ${accounts} + 1) * ${PRICE_MINOR}, ${order}, now()
       from ${series} join billing.account on id = ${account}`,
    )
    await client.query(
      `update billing.account a set version = version + paid, balance_minor = balance_minor - sum
       from (select account_id, count(*) as paid, sum(amount_minor) as sum
         from billing.payment group by account_id) as p
       where a.id = p.account_id`,
    )
    await client.query('vacuum analyze')
  })
  await inDatabase(urls.notification, async (client) => {
    await client.query(
      `insert into notification.message (id, event_id, account_id, event, text, created)
       select ${order}, ${order} || '/ORDER_PAID', ${account}, 'ORDER_PAID',
         'ORDER ' || ${order} || ' PAID SUCCESSFULLY', now()
       from ${series}`,
    )
    await client.query('vacuum analyze')
    await client.query('checkpoint')
  })
}
