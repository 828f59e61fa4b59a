import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import { type Chance, createChances } from '../../instruments/simulation/world/chance.ts'
import { eventually, UNIT_PRICE } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

/**
 * A style is a way, not an outcome: the same wishes, one after the other on each account, leave the
 * same ledger, orders and messages in each. SEED takes others than those of every day.
 */
const SEEDS = process.env.SEED ? [Number(process.env.SEED)] : [1, 2, 3]
const ACCOUNTS = 4
const WISHES = 14

type Wish =
  | { readonly kind: 'deposit'; readonly amount: number }
  | { readonly kind: 'order'; readonly quantity: number }
  /** Deletes the order that was placed so long before, if there is one. */
  | { readonly kind: 'delete'; readonly back: number }

const trifold = await startProgram()
after(() => trifold.close())

for (const seed of SEEDS) {
  test(`seed ${seed}: each style leaves the same ledger, orders and messages`, {
    timeout: 300_000,
  }, async () => {
    const plans = Array.from({ length: ACCOUNTS }, (_, account) =>
      planOf(createChances(seed)(`account ${account}`)),
    )
    const outcomes = await Promise.all(
      STYLES.map((style) => Promise.all(plans.map((plan) => outcomeOf(plan, style)))),
    )
    const [first, ...others] = outcomes
    for (const [index, other] of others.entries()) {
      assert.deepEqual(other, first, `${STYLES[index + 1]} differs from ${STYLES[0]}`)
    }
    // Each outcome is among them, so that there was something to compare.
    const states = first!.flatMap(({ orders }) => orders)
    for (const state of ['APPROVED null', 'CANCELED NOT_ENOUGH_MONEY', 'CANCELED DELETED']) {
      assert.ok(states.includes(state), `no order is ${state}: ${states}`)
    }
  })
}

test('leaves all invariants intact', () => assertInvariantsHold(trifold))

/** There is little money, so that orders are refused now and then. */
function planOf(chance: Chance): Wish[] {
  return Array.from({ length: WISHES }, (_, nth): Wish => {
    // An amount is another each time, and so is known by it.
    const amount = chance.integer(3 * UNIT_PRICE) + 1 + nth / 100
    if (nth === 0 || chance.happens(0.3)) return { kind: 'deposit', amount }
    if (chance.happens(0.7)) return { kind: 'order', quantity: chance.integer(3) + 1 }
    return { kind: 'delete', back: chance.integer(3) + 1 }
  })
}

/** What an account looks like after its wishes; ids are replaced by what they stand for. */
async function outcomeOf(plan: readonly Wish[], style: InteractionStyle) {
  const account = await trifold.createAccount()
  const placed: string[] = []
  for (const wish of plan) await fulfil(wish, account, placed, style)

  const name = (text: string) =>
    placed.reduce((said, id, nth) => said.replaceAll(id, `#${nth}`), text).replaceAll(account, 'A')
  const entries = (await trifold.entries(account)).map(
    ({ kind, amount, balanceAfter, orderId }) =>
      `${kind} ${name(orderId ?? '')} ${amount} leaves ${balanceAfter}`,
  )
  const orders = await Promise.all(placed.map((id) => trifold.getOrder(account, id, 0)))
  // As many events have a message as the ledger and the refused orders say.
  const refused = orders.filter(({ reason }) => reason === 'NOT_ENOUGH_MONEY').length
  const messages = await eventually(async () => {
    const all = await trifold.messages(account)
    assert.ok(all.length >= entries.length + refused, `${all.length} messages in ${style}`)
    return all
  })
  return {
    entries,
    balance: await trifold.balance(account),
    orders: orders.map(({ state, reason }) => `${state} ${reason}`),
    messages: messages.map(({ event, text }) => `${event} ${name(text)}`).sort(),
  }
}

/** Resolves when its outcome is there, so that the next wish begins from it. */
async function fulfil(
  wish: Wish,
  account: string,
  placed: string[],
  style: InteractionStyle,
): Promise<void> {
  switch (wish.kind) {
    case 'deposit': {
      const balance = await trifold.deposit(account, wish.amount, style)
      await eventually(async () => assert.equal(await trifold.balance(account), balance))
      return
    }
    case 'order': {
      const { status, body } = await trifold.order(account, { style, quantity: wish.quantity })
      assert.ok(status === 201 || status === 402, `${style} answered ${status}`)
      const id = status === 201 ? body : body.orderId!
      placed.push(id)
      assert.notEqual((await trifold.getOrder(account, id)).state, 'PENDING')
      return
    }
    case 'delete': {
      const id = placed.at(-wish.back)
      if (id === undefined) return
      await trifold.deleteOrder(account, id)
      await eventually(async () => {
        assert.equal((await trifold.getOrder(account, id, 0)).state, 'CANCELED')
        assert.notEqual((await trifold.payment(id)).state, 'PAID')
      })
      return
    }
    default:
      wish satisfies never
  }
}
