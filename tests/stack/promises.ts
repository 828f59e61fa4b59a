import assert from 'node:assert/strict'
import type { OrderView } from '../../contracts/http.ts'
import { flowOf } from '../../contracts/style.ts'
import { type Client, eventually, sumOf } from '../e2e/client.ts'
import type { Account } from './customers.ts'
import { describeErrand, type Errand, finalResponseOf } from './errands.ts'

const ACCOUNTS_AT_ONCE = 8

/**
 * Asserts that every response that a customer received holds: each errand took effect once, each order has
 * the outcome of its response, each balance in a response is in the ledger, and each event has one notice, or
 * at most one if notices may be lost. Waits up to `limitMs` for work in flight.
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
      // Orders that were accepted in `events` may still be in flight.
      await eventually(
        () => assertLedger(client, account, orders, own, messagesMayBeLost),
        leftMs(),
      )
      await eventually(async () => {
        if (messagesMayBeLost) await assertNotifiedOnce(client, account)
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

/** There is exactly one order per key, in the state of its final response, and no other order. */
function assertOrders(orders: readonly OrderView[], errands: readonly Errand[]): void {
  const known = new Map(orders.map((order) => [order.id, order]))
  const placed = errands.filter(({ kind }) => kind === 'order')
  for (const errand of placed) {
    const final = finalResponseOf(errand)
    assert.ok(final && final.kind !== 'booked', describeErrand(errand))
    const order = known.get(final.orderId)
    assert.ok(order, `lost: ${describeErrand(errand)}`)
    known.delete(final.orderId)
    assert.equal(order.style, errand.style)
    if (final.kind === 'accepted') assert.match(order.state, /^(APPROVED|CANCELED)$/)
    else assert.equal(order.state.toLowerCase(), final.kind, describeErrand(errand))
  }
  assert.deepEqual([...known.values()], [], 'orders without a response')
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
    const final = finalResponseOf(deposit)
    assert.equal(final?.kind, 'booked', describeErrand(deposit))
    const entry = booked.get(deposit.amount)
    assert.ok(entry, `lost: ${describeErrand(deposit)}`)
    // If the log is lost, a deposit may be resent and booked after later ones. The promised balance is then the sum
    // of this and all earlier deposits, because a saver has no other money.
    const isLate = messagesMayBeLost && flowOf(deposit.style).deposit === 'promised'
    const promised = isLate ? sumOf(deposits.slice(0, index + 1)) : entry.balanceAfter
    assert.equal(promised, final.balance, describeErrand(deposit))
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
  const texts = await assertNotifiedOnce(client, { id })
  const deposits = errands.flatMap((errand) => (errand.kind === 'deposit' ? [errand.amount] : []))
  if (funds > 0) deposits.push(funds)
  const expected = [
    ...deposits.map((amount) => `DEPOSIT ${amount} ACCEPTED ON ACCOUNT ${id}`),
    ...orders.flatMap((order) => textOf(order)),
  ]
  const missing = expected.filter((text) => !texts.has(text))
  assert.deepEqual(missing, [], `notices are missing on ${id}`)
}

async function assertNotifiedOnce(
  client: Client,
  { id }: Pick<Account, 'id'>,
): Promise<Set<string>> {
  const texts = (await client.messages(id)).map(({ text }) => text)
  const distinct = new Set(texts)
  assert.equal(distinct.size, texts.length, `an event has two notices on ${id}`)
  return distinct
}

/**
 * The notice that must exist. If an order was canceled and its payment may have been taken, no particular
 * notice is certain.
 */
function textOf({ id, profileId, state, reason }: OrderView): string[] {
  if (state === 'APPROVED') return [`ORDER ${id} PAID SUCCESSFULLY`]
  if (reason !== 'NOT_ENOUGH_MONEY') return []
  return [`NOT ENOUGH MONEY on account ${profileId} for order ${id}`]
}
