import { parseAmount } from '../../contracts/money.ts'
import { findDeposits, findPayments } from '../../services/billing/store.ts'
import { findOrders } from '../../services/order/store.ts'
import { LOWEST_ID, PAGE_ROWS } from '../audit/pages.ts'
import type { Commands } from './commands.ts'
import type { Comparison, Difference, Repair } from './differences.ts'
import {
  buyersAfter,
  knownAccounts,
  type Message,
  moneyMessagesAfter,
  notifiedAccounts,
  notifiedAccountsAfter,
} from './store.ts'

/**
 * Finds accounts that are missing from the billing database because they were created after the time to which
 * it was restored.
 */
export async function compareAccounts(at: Comparison, commands: Commands): Promise<void> {
  const { databases, since } = at
  const { orders, billing, notification } = databases
  const missing = async (ids: readonly string[]) => {
    const known = await knownAccounts(billing, ids)
    return ids.filter((id) => !known.has(id))
  }
  const report = async (ids: readonly string[]) => {
    for (const id of ids) {
      await at.found({ kind: 'ACCOUNT_MISSING', id, accountId: id }, () =>
        commands.createAccount(id),
      )
    }
  }
  for (let after = LOWEST_ID; ; ) {
    const notified = await notifiedAccountsAfter(notification, after, since, PAGE_ROWS)
    if (notified.length === 0) break
    after = notified.at(-1)!
    await report(await missing(notified))
  }
  for (let after = LOWEST_ID; ; ) {
    const buyers = await buyersAfter(orders, after, since, PAGE_ROWS)
    if (buyers.length === 0) return
    after = buyers.at(-1)!
    const unknown = await missing(buyers)
    const reported = await notifiedAccounts(notification, unknown, since)
    await report(unknown.filter((id) => !reported.has(id)))
  }
}

/**
 * Compares the messages about money with the deposits and payments in the billing database. The messages of
 * an account are in the order of its ledger, and repairs follow that order: money is added before it is
 * spent, and the ledger gets its original order back.
 */
export async function compareLedger(at: Comparison, commands: Commands): Promise<void> {
  let last: Pick<Message, 'accountId' | 'seq'> = { accountId: LOWEST_ID, seq: 0n }
  for (;;) {
    const page = await moneyMessagesAfter(at.databases.notification, last, at.since, PAGE_ROWS)
    if (page.length === 0) return
    last = page.at(-1)!
    const causes = await causesOf(at, page)
    for (const message of page) {
      const missing = findMissing(message, causes, commands)
      if (missing) await at.found(missing.difference, missing.repair)
    }
  }
}

interface Missing {
  readonly difference: Difference
  readonly repair?: Repair
}

type Causes = Awaited<ReturnType<typeof causesOf>>

/** The deposits, payments and orders that these messages are about. */
async function causesOf({ databases }: Comparison, messages: readonly Message[]) {
  const ids = (isWanted: (message: Message) => boolean) => [
    ...new Set(messages.filter(isWanted).flatMap((message) => causeOf(message) ?? [])),
  ]
  const depositIds = ids(({ event }) => event === 'DEPOSIT_ACCEPTED')
  const orderIds = ids(({ event }) => event !== 'DEPOSIT_ACCEPTED')
  return {
    deposits: await findDeposits(databases.billing, depositIds),
    payments: await findPayments(databases.billing, orderIds),
    orders: await findOrders(databases.orders, orderIds),
  }
}

function findMissing(message: Message, causes: Causes, commands: Commands): Missing | undefined {
  const id = causeOf(message)
  if (id === undefined) return undefined
  switch (message.event) {
    case 'DEPOSIT_ACCEPTED':
      return missingDeposit(id, message, causes, commands)
    case 'ORDER_PAID':
      return missingPayment(id, message, causes, commands)
    case 'PAYMENT_REFUNDED':
      return missingRefund(id, message, causes, commands)
  }
}

function missingDeposit(
  id: string,
  { accountId, text }: Message,
  { deposits }: Causes,
  commands: Commands,
): Missing | undefined {
  if (deposits.get(id)?.state === 'APPLIED') return undefined
  const [, amount = '', notifiedId] = DEPOSIT_TEXT.exec(text) ?? []
  const amountMinor = deposits.get(id)?.amountMinor ?? parseAmount(amount)
  if (typeof amountMinor === 'string' || (notifiedId !== undefined && notifiedId !== accountId)) {
    return { difference: { kind: 'DEPOSIT_UNREADABLE', id, accountId } }
  }
  return {
    difference: { kind: 'DEPOSIT_MISSING', id, accountId, amountMinor },
    repair: () => commands.deposit(id, accountId, amountMinor),
  }
}

function missingPayment(
  id: string,
  { accountId }: Message,
  { payments, orders }: Causes,
  commands: Commands,
): Missing | undefined {
  const state = payments.get(id)?.state
  if (state === 'PAID' || state === 'REFUNDED') return undefined
  const order = orders.get(id)
  if (order === undefined) return { difference: { kind: 'PAYMENT_UNREADABLE', id, accountId } }
  const { priceMinor: amountMinor, style, profileId } = order
  const difference = { id, accountId, amountMinor }
  const conflict = state
    ? `the order was announced as paid, but its payment is ${state}`
    : profileId !== accountId && `the order belongs to ${profileId}`
  if (conflict) return { difference: { ...difference, kind: 'PAYMENT_CONFLICT', detail: conflict } }
  return {
    difference: { ...difference, kind: 'PAYMENT_MISSING' },
    repair: () => commands.pay({ orderId: id, accountId, amountMinor, style }),
  }
}

function missingRefund(
  id: string,
  { accountId }: Message,
  { payments, orders }: Causes,
  commands: Commands,
): Missing | undefined {
  const payment = payments.get(id)
  const order = orders.get(id)
  // If the payment is missing as well, repairing it was attempted earlier, at the message about the payment.
  const isLost = payment === undefined && order !== undefined
  if (payment?.state !== 'PAID' && !isLost) return undefined
  const style = (payment ?? order)!.style
  const amountMinor = payment?.amountMinor ?? order!.priceMinor
  return {
    difference: { kind: 'REFUND_MISSING', id, accountId, amountMinor },
    repair: () => commands.voidPayment(id, accountId, style),
  }
}

const ID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
const PAYMENT_EVENT = new RegExp(`^(${ID})/(?:ORDER_PAID|PAYMENT_REFUNDED)$`)
const DEPOSIT_EVENT = /^(.+)\/DEPOSIT_ACCEPTED$/s
const DEPOSIT_TEXT = new RegExp(`^DEPOSIT (\\S+) ACCEPTED ON ACCOUNT (${ID})$`)

/**
 * The id of the order or deposit that a message is about; undefined if the billing service cannot have
 * derived the event id.
 */
function causeOf({ event, eventId }: Message): string | undefined {
  return (event === 'DEPOSIT_ACCEPTED' ? DEPOSIT_EVENT : PAYMENT_EVENT).exec(eventId)?.[1]
}
