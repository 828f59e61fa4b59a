import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import { type Chance, createChances } from '../../instruments/simulation/world/chance.ts'
import { eventually, UNIT_PRICE } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

/**
 * The style does not change the outcome: the same actions, one after another on each account, result in the
 * same ledger, orders and notices in each style. SEED selects other actions.
 */
const SEEDS = process.env.SEED ? [Number(process.env.SEED)] : [1, 2, 3]
const ACCOUNTS = 4
const WISHES = 14

type Action =
  | { readonly kind: 'deposit'; readonly amount: number }
  | { readonly kind: 'order'; readonly quantity: number }
  /** Deletes the order placed `back` orders ago, if there is one. */
  | { readonly kind: 'delete'; readonly back: number }

const trifold = await startProgram()
after(() => trifold.close())

for (const seed of SEEDS) {
  test(`seed ${seed}: each style results in the same ledger, orders and notices`, {
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
    // Each outcome occurs, so that the comparison is meaningful.
    const states = first!.flatMap(({ orders }) => orders)
    for (const state of ['APPROVED null', 'CANCELED NOT_ENOUGH_MONEY', 'CANCELED DELETED']) {
      assert.ok(states.includes(state), `no order is ${state}: ${states}`)
    }
  })
}

test('leaves all invariants intact', () => assertInvariantsHold(trifold))

/** Deposits are small, so that some orders are refused. */
function planOf(chance: Chance): Action[] {
  return Array.from({ length: WISHES }, (_, nth): Action => {
    // All amounts are different, so that each identifies its deposit.
    const amount = chance.integer(3 * UNIT_PRICE) + 1 + nth / 100
    if (nth === 0 || chance.happens(0.3)) return { kind: 'deposit', amount }
    if (chance.happens(0.7)) return { kind: 'order', quantity: chance.integer(3) + 1 }
    return { kind: 'delete', back: chance.integer(3) + 1 }
  })
}

/** The state of an account after its actions. Ids are replaced by names that are equal in all styles. */
async function outcomeOf(plan: readonly Action[], style: InteractionStyle) {
  const account = await trifold.createAccount()
  const placed: string[] = []
  for (const action of plan) await perform(action, account, placed, style)

  const name = (text: string) =>
    placed
      .reduce((named, id, nth) => named.replaceAll(id, `#${nth}`), text)
      .replaceAll(account, 'A')
  const entries = (await trifold.entries(account)).map(
    ({ kind, amount, balanceAfter, orderId }) =>
      `${kind} ${name(orderId ?? '')} ${amount} leaves ${balanceAfter}`,
  )
  const orders = await Promise.all(placed.map((id) => trifold.getOrder(account, id, 0)))
  // There is a notice for each ledger entry and each refused order.
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

/** Performs an action and waits for its outcome, so that the next action starts from that state. */
async function perform(
  action: Action,
  account: string,
  placed: string[],
  style: InteractionStyle,
): Promise<void> {
  switch (action.kind) {
    case 'deposit': {
      const balance = await trifold.deposit(account, action.amount, style)
      await eventually(async () => assert.equal(await trifold.balance(account), balance))
      return
    }
    case 'order': {
      const { status, body } = await trifold.order(account, { style, quantity: action.quantity })
      assert.ok(status === 201 || status === 402, `${style} returned ${status}`)
      const id = status === 201 ? body : body.orderId!
      placed.push(id)
      assert.notEqual((await trifold.getOrder(account, id)).state, 'PENDING')
      return
    }
    case 'delete': {
      const id = placed.at(-action.back)
      if (id === undefined) return
      await trifold.deleteOrder(account, id)
      await eventually(async () => {
        assert.equal((await trifold.getOrder(account, id, 0)).state, 'CANCELED')
        assert.notEqual((await trifold.payment(id)).state, 'PAID')
      })
      return
    }
    default:
      action satisfies never
  }
}
