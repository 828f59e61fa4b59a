import { toUnits } from '../../contracts/money.ts'
import { type Announced, auditAnnouncements, auditMissing } from './announcements.ts'
import {
  type AuditInput,
  type Checked,
  createFindings,
  type Findings,
  MAX_VIOLATIONS_EACH,
  type Violation,
} from './findings.ts'
import { auditOutstanding } from './outstanding.ts'
import { pagesOf } from './pages.ts'
import {
  type BrokenAccount,
  type BrokenEntry,
  type BrokenPayment,
  brokenAccounts,
  brokenDeposits,
  brokenEntries,
  brokenPayments,
  type LedgerTotals,
  lateOrders,
  ledgerTotals,
  type Order,
  ordersFrom,
  type Payment,
  paymentsOf,
} from './store.ts'
import { auditTopics } from './topics.ts'

/** Milliseconds after its deadline during which an order may still be PENDING. */
const DEADLINE_GRACE_MS = 60_000

/**
 * Checks all invariants and returns the violations, at most MAX_VIOLATIONS_EACH for each invariant. If
 * `settled` is not set, the services may be running. A state is then read before its consequences, so that
 * work in flight is not reported as a violation. Rejects if a database cannot be read.
 */
export async function audit(input: AuditInput, checked?: Checked): Promise<readonly Violation[]> {
  const findings = createFindings(checked)
  await auditLedger(input, findings)
  await auditTransfers(input, findings)
  await auditOrders(input, findings)
  await auditPending(input, findings)
  await auditAnnouncements(input, findings)
  if (input.topics) await auditTopics(input, input.topics, findings)
  await auditOutstanding(input, findings)
  return findings.violations.toSorted((a, b) => (a.invariant < b.invariant ? -1 : 1))
}

/** Checks I1, and counts the rows on which I2 is checked. */
async function auditLedger({ billing }: AuditInput, findings: Findings): Promise<void> {
  const totals = await ledgerTotals(billing)
  findings.checked('I1', Number(totals.transfers), 'transfers')
  findings.checked('I1', Number(totals.accounts), 'accounts')
  findings.checked('I2', Number(totals.payments), 'payments')
  findings.checked('I2', Number(totals.deposits), 'deposits')
  const unbalanced = imbalanceOf(totals)
  if (unbalanced) findings.add('I1', 'ledger', unbalanced)
  for (const account of await brokenAccounts(billing, MAX_VIOLATIONS_EACH)) {
    findings.add('I1', `account ${account.id}`, accountSentence(account))
  }
  for (const entry of await brokenEntries(billing, MAX_VIOLATIONS_EACH)) {
    findings.add('I1', `account ${entry.accountId}`, entrySentence(entry))
  }
}

function imbalanceOf({ customers, cash, revenue }: LedgerTotals): string | undefined {
  const sum = BigInt(customers) + BigInt(cash) + BigInt(revenue)
  if (sum === 0n) return undefined
  const parts = `customers ${money(customers)}, cash ${money(cash)}, revenue ${money(revenue)}`
  return `does not sum to zero but to ${money(sum)}: ${parts}`
}

function accountSentence(account: BrokenAccount): string {
  const { version, entries, balanceMinor, entriesMinor, pendingMinor, requestedMinor } = account
  const faults: string[] = []
  if (balanceMinor < 0n) faults.push(`has a negative balance of ${money(balanceMinor)}`)
  if (balanceMinor !== BigInt(entriesMinor)) {
    faults.push(
      `has a balance of ${money(balanceMinor)}, but its entries sum to ${money(entriesMinor)}`,
    )
  }
  if (pendingMinor !== BigInt(requestedMinor)) {
    faults.push(`has ${money(pendingMinor)} pending, but ${money(requestedMinor)} requested`)
  }
  if (BigInt(version) !== entries || faults.length === 0) {
    faults.push(`is at version ${version}, but has ${entries} entries`)
  }
  return faults.join('; ')
}

function entrySentence(entry: BrokenEntry): string {
  const { version, previousVersion, kind, debit, credit, balanceAfterMinor } = entry
  const { movedMinor, balanceBeforeMinor } = entry
  if (version !== previousVersion + 1) return `has entry ${version} after entry ${previousVersion}`
  if (!entry.rightSides) return `has entry ${version}, a ${kind} from ${debit} to ${credit}`
  const before = `${money(balanceBeforeMinor)} and a transfer of ${money(movedMinor)}`
  return `has entry ${version} with a balance of ${money(balanceAfterMinor)} after ${before}`
}

/** Checks I2. */
async function auditTransfers({ billing }: AuditInput, findings: Findings): Promise<void> {
  for (const payment of await brokenPayments(billing, MAX_VIOLATIONS_EACH)) {
    findings.add('I2', `order ${payment.orderId}`, transfersSentence(payment))
  }
  for (const deposit of await brokenDeposits(billing, MAX_VIOLATIONS_EACH)) {
    const { depositId, state, credits, sameTerms } = deposit
    const sentence = sameTerms
      ? `is ${state ?? 'unknown'}, with ${credits} credits in the ledger`
      : 'has a transfer with another account or amount'
    findings.add('I2', `deposit ${depositId}`, sentence)
  }
}

function transfersSentence({ state, debits, refunds, sameTerms }: BrokenPayment): string {
  if (!sameTerms) return 'has a transfer whose account or amount differs from its payment'
  const payment = state === null ? 'has no payment' : `has a payment that is ${state}`
  return `${payment}, with ${debits} debits and ${refunds} refunds in the ledger`
}

/** Checks I3 and I8, and also I5 for the failures that the order service announces itself. */
async function auditOrders(input: AuditInput, findings: Findings): Promise<void> {
  const pages = pagesOf(
    (from, limit) => ordersFrom(input.orders, from, limit),
    ({ id }) => id,
  )
  for await (const orders of pages) {
    const payments = await paymentsOf(
      input.billing,
      orders.map(({ id }) => id),
    )
    const byOrder = new Map(payments.map((payment) => [payment.orderId, payment]))
    for (const order of orders) auditOrder(order, byOrder.get(order.id), input, findings)
    findings.checked('I3', orders.length, 'orders')
    findings.checked('I4', orders.length, 'orders')
    findings.checked('I8', payments.length, 'payments of orders')
    const failures = orders.flatMap((order) => failureToAnnounce(order, byOrder.get(order.id)))
    await auditMissing(input, findings, 'orders', failures)
  }
}

function auditOrder(
  order: Order,
  payment: Payment | undefined,
  { settled }: AuditInput,
  findings: Findings,
): void {
  const { id, state, priceMinor, profileId } = order
  const subject = `order ${id}`
  if (state === 'APPROVED') {
    // If the billing service refunded the payment on its own, the event or call that notifies the order
    // service may be in flight.
    const isHeld = payment?.state === 'PAID' || (!settled && payment?.state === 'REFUNDED')
    if (!isHeld) {
      findings.add('I3', subject, `is APPROVED, but its payment is ${payment?.state ?? 'missing'}`)
    } else if (payment.amountMinor !== priceMinor) {
      const paid = money(payment.amountMinor ?? 0n)
      findings.add('I3', subject, `costs ${money(priceMinor)}, but ${paid} were paid`)
    }
  } else if (settled && payment?.state === 'PAID') {
    findings.add('I3', subject, `is ${state}, but its payment is PAID`)
  }
  const payer = payment?.accountId ?? profileId
  if (payment?.state === 'PAID' && payer !== profileId) {
    const sentence = `belongs to ${profileId}, but its payment names account ${payer}`
    findings.add('I8', subject, sentence)
  }
}

/**
 * The failure that the order service must have announced, if any. A cancellation is announced by
 * PAYMENT_REFUNDED if money was taken, otherwise by PAYMENT_FAIL. The billing service announces PAYMENT_FAIL
 * if the account was missing or had too little money; the order service announces it for all other reasons.
 */
export function failureToAnnounce(
  { id, profileId, state, style, reason, announcesCancellation }: Order,
  payment: Payment | undefined,
): Announced[] {
  const wasPaid = payment?.state === 'PAID' || payment?.state === 'REFUNDED'
  const isRefund = reason === 'REFUNDED' || (wasPaid && payment.accountId === profileId)
  const isBillings = reason === 'NOT_ENOUGH_MONEY' || reason === 'ACCOUNT_NOT_FOUND'
  if (state !== 'CANCELED' || isRefund || isBillings || !announcesCancellation) return []
  return [{ eventId: `${id}/PAYMENT_FAIL`, style, subject: `order ${id}` }]
}

/** Checks I4. */
async function auditPending(
  { orders, settled, now }: AuditInput,
  findings: Findings,
): Promise<void> {
  const due = settled ? 'any time' : now - DEADLINE_GRACE_MS
  for (const order of await lateOrders(orders, due, MAX_VIOLATIONS_EACH)) {
    const { id, state, deadline } = order
    const sentence =
      state === 'PENDING'
        ? deadline
          ? `is still PENDING, with a deadline of ${deadline.toISOString()}`
          : 'is PENDING, but not in the table watch'
        : `is in the table watch, although it is ${state ?? 'unknown'}`
    findings.add('I4', `order ${id}`, sentence)
  }
}

/**
 * Converts minor units into units, for display only, because a sum may be too large to be an exact number.
 */
function money(minor: bigint | string): string {
  return String(toUnits(BigInt(minor)))
}
