import assert from 'node:assert/strict'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import { eventually, UNIT_PRICE } from '../e2e/client.ts'
import type { RunningProgram } from '../e2e/program.ts'

/** A customer in a rehearsal. Each style has one customer from before the backup and one from after it. */
export interface Customer {
  readonly style: InteractionStyle
  readonly account: string
}

/** The data that a customer can see. */
export interface View {
  readonly balance: number
  readonly orders: readonly { readonly id: string; readonly state: string }[]
  /** Kinds and amounts, in the order of the ledger. */
  readonly entries: readonly string[]
  readonly texts: readonly string[]
}

/** The traffic before the backup: in each style a deposit, and orders that are paid, refused, deleted and pending. */
export async function tradeBefore(program: RunningProgram): Promise<Customer[]> {
  const customers: Customer[] = []
  for (const style of STYLES) {
    const account = await program.createAccount()
    customers.push({ style, account })
    const email = { email: `${style}@before.example` }
    await program.read(`/notification/contact/${account}`, { json: email }, 'PUT')
    await deposit(program, { style, account }, 10 * UNIT_PRICE)
    await order(program, { style, account }, 1)
    await order(program, { style, account }, 1)
    await order(program, { style, account }, 1_000)
    await program.deleteOrder(account, await order(program, { style, account }, 2))
  }
  await untilRefunded(program, customers)
  await program.lab.billing.stop()
  for (const { account } of customers) await program.order(account, { style: 'events' })
  return customers
}

/**
 * The traffic between the backup and the restore: earlier orders are settled, deleted and refunded, customers
 * deposit and spend money, and new customers arrive.
 */
export async function tradeAfter(
  program: RunningProgram,
  before: readonly Customer[],
): Promise<Customer[]> {
  await program.lab.billing.start()
  const newcomers: Customer[] = []
  for (const customer of before) {
    const { style, account } = customer
    const orders = await settled(program, account)
    const [refunded, deleted] = orders.filter((one) => one.style === style && isPaid(one))
    await program.deleteOrder(account, deleted!.id)
    await program.read(`/billing/payments/${refunded!.id}/void`, {}, 'POST')
    // A refund that arrives later would change the balance with which the deposit is compared.
    await untilRefunded(program, [customer])
    await deposit(program, customer, 20 * UNIT_PRICE)
    // Costs more than the account had before this deposit.
    await order(program, customer, 15)
    await order(program, customer, 1_000)
    await program.deleteOrder(account, await order(program, customer, 3))

    const newcomer = { style, account: await program.createAccount() }
    newcomers.push(newcomer)
    await order(program, newcomer, 1)
    await deposit(program, newcomer, 2 * UNIT_PRICE)
    await order(program, newcomer, 2)
  }
  const all = [...before, ...newcomers]
  await untilRefunded(program, all)
  return all
}

const isPaid = ({ state }: { readonly state: string }) => state === 'APPROVED'

async function order(program: RunningProgram, { style, account }: Customer, quantity: number) {
  const { body } = await program.order(account, { style, quantity })
  const id: string = body.orderId ?? body
  await program.getOrder(account, id)
  return id
}

async function deposit(program: RunningProgram, { style, account }: Customer, amount: number) {
  const expected = await program.deposit(account, amount, style)
  await eventually(async () => assert.equal(await program.balance(account), expected))
}

const settled = (program: RunningProgram, account: string) =>
  eventually(async () => {
    const orders = await program.orders(account)
    assert.ok(orders.every(({ state }) => state !== 'PENDING'))
    return orders
  })

/** Waits until every payment of a canceled order is refunded. */
async function untilRefunded(program: RunningProgram, customers: readonly Customer[]) {
  for (const { account } of customers) {
    await eventually(async () => {
      const orders = await program.orders(account)
      const entries = await program.entries(account)
      const kept = entries.filter(({ kind }) => kind === 'PAYMENT').length
      const refunds = entries.filter(({ kind }) => kind === 'REFUND').length
      assert.equal(kept - refunds, orders.filter(isPaid).length)
    })
  }
}

export async function viewOf(program: RunningProgram, account: string): Promise<View> {
  const orders = await program.orders(account)
  const entries = await program.entries(account)
  const messages = await program.messages(account)
  return {
    balance: await program.balance(account),
    orders: orders.map(({ id, state }) => ({ id, state })),
    entries: entries.map(({ kind, amount }) => `${kind} ${amount}`),
    texts: messages.map(({ text }) => text),
  }
}
