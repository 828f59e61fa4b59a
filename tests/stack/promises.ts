import assert from 'node:assert/strict'
import type { OrderView } from '../../contracts/http.ts'
import { flowOf } from '../../contracts/style.ts'
import { type Client, eventually, sumOf } from '../e2e/client.ts'
import type { Account } from './customers.ts'
import { describeErrand, type Errand, toldOf } from './errands.ts'

const ACCOUNTS_AT_ONCE = 8

/**
 * What customers were told holds: each errand had its effect once, each order came out as it was said,
 * each balance that was told stands in the ledger, and each event has one message, or none where
 * they may be lost. Waits for what is still under way until `limitMs` have passed.
 */
export async function assertPromisesKept(
  client: Client,
  accounts: readonly Account[],
  errands: readonly Errand[],
  limitMs: number,
  { messagesMayBeLost = false } = {},
): Promise<void> {
  const byAccount = Map.groupBy(errands, ({ account }) => account)
  const rest = [...accounts]
  const deadline = performance.now() + limitMs
  async function work(): Promise<void> {
    for (let account = rest.pop(); account !== undefined; account = rest.pop()) {
      const { id } = account
      const own = byAccount.get(id) ?? []
      const leftMs = () => Math.max(0, deadline - performance.now())
      const orders = await settledOrders(client, id, leftMs())
      assertOrders(orders, own)
      // What was accepted in `events` is on its way.
      await eventually(
        () => assertLedger(client, account, orders, own, messagesMayBeLost),
        leftMs(),
      )
      await eventually(async () => {
        if (messagesMayBeLost) await assertHeardOnce(client, account)
        else await assertMessages(client, account, orders, own)
      }, leftMs())
    }
  }
  await Promise.all(Array.from({ length: ACCOUNTS_AT_ONCE }, work))
}

function settledOrders(client: Client, account: string, limitMs: number): Promise<OrderView[]> {
  return eventually(async () => {
    const orders = await client.orders(account)
    const pending = orders.filter(({ state }) => state === 'PENDING')
    assert.deepEqual(pending, [], 'orders are still PENDING')
    return orders
  }, limitMs)
}

/** One order for each key, none besides, and in the state that was told. */
function assertOrders(orders: readonly OrderView[], errands: readonly Errand[]): void {
  const known = new Map(orders.map((order) => [order.id, order]))
  const placed = errands.filter(({ kind }) => kind === 'order')
  for (const errand of placed) {
    const told = toldOf(errand)
    assert.ok(told && told.kind !== 'booked', describeErrand(errand))
    const order = known.get(told.orderId)
    assert.ok(order, `lost: ${describeErrand(errand)}`)
    known.delete(told.orderId)
    assert.equal(order.style, errand.style)
    if (told.kind === 'accepted') assert.match(order.state, /^(APPROVED|CANCELED)$/)
    else assert.equal(order.state.toLowerCase(), told.kind, describeErrand(errand))
  }
  assert.deepEqual([...known.values()], [], 'orders that nobody was told of')
}

async function assertLedger(
  client: Client,
  { id, funds }: Account,
  orders: readonly OrderView[],
  errands: readonly Errand[],
  messagesMayBeLost: boolean,
): Promise<void> {
  const entries = await client.entries(id)
  const deposits = errands.flatMap((errand) => (errand.kind === 'deposit' ? [errand] : []))
  const booked = new Map(
    entries.filter(({ kind }) => kind === 'DEPOSIT').map((entry) => [entry.amount, entry]),
  )
  const times = entries.filter(({ kind }) => kind === 'DEPOSIT').length
  assert.equal(times, deposits.length + (funds > 0 ? 1 : 0), `deposits of ${id}`)
  for (const [index, deposit] of deposits.entries()) {
    const told = toldOf(deposit)
    assert.equal(told?.kind, 'booked', describeErrand(deposit))
    const entry = booked.get(deposit.amount)
    assert.ok(entry, `lost: ${describeErrand(deposit)}`)
    // One that only the log held is asked for again, and then comes behind later ones. A saver, who has no
    // other money, was told what it leads to with all that he had saved before.
    const isLate = messagesMayBeLost && flowOf(deposit.style).deposit === 'promised'
    const leadsTo = isLate ? sumOf(deposits.slice(0, index + 1)) : entry.balanceAfter
    assert.equal(leadsTo, told.balance, describeErrand(deposit))
  }
  const approved = orders.filter(({ state }) => state === 'APPROVED')
  const spent = approved.reduce((sum, { price }) => sum + price, 0)
  const balance = await client.balance(id)
  assert.equal(sumOf(entries), balance)
  assert.equal(Math.round((funds + sumOf(deposits) - spent) * 100), Math.round(balance * 100))
}

async function assertMessages(
  client: Client,
  { id, funds }: Account,
  orders: readonly OrderView[],
  errands: readonly Errand[],
): Promise<void> {
  const told = await assertHeardOnce(client, { id })
  const deposits = errands.flatMap((errand) => (errand.kind === 'deposit' ? [errand.amount] : []))
  if (funds > 0) deposits.push(funds)
  const expected = [
    ...deposits.map((amount) => `DEPOSIT ${amount} ACCEPTED ON ACCOUNT ${id}`),
    ...orders.flatMap((order) => textOf(order)),
  ]
  const missing = expected.filter((text) => !told.has(text))
  assert.deepEqual(missing, [], `messages are missing on ${id}`)
}

async function assertHeardOnce(client: Client, { id }: Pick<Account, 'id'>): Promise<Set<string>> {
  const texts = (await client.messages(id)).map(({ text }) => text)
  const told = new Set(texts)
  assert.equal(told.size, texts.length, `an event has two messages on ${id}`)
  return told
}

/** Of an order that was given up its payment decides: it may never have been, or was given back. */
function textOf({ id, profileId, state, reason }: OrderView): string[] {
  if (state === 'APPROVED') return [`ORDER ${id} PAID SUCCESSFULLY`]
  if (reason !== 'NOT_ENOUGH_MONEY') return []
  return [`NOT ENOUGH MONEY on account ${profileId} for order ${id}`]
}
