import { flowOf, type InteractionStyle } from '../../../contracts/style.ts'
import { isFinal, type Operation } from '../world/customers.ts'
import { isReadable } from '../world/responses.ts'
import type { Add, Tables } from './tables.ts'

/**
 * The ledger must explain every balance that a customer got in a response. A read returns the balance after some
 * ledger entry. A deposit in `http` and `hybrid` returns the balance after its own entry. In `events` it returns
 * the promised balance: the balance after some entry, plus this deposit, plus other deposits that were requested
 * and not yet booked.
 */
export function checkBalances(operations: readonly Operation[], tables: Tables, add: Add): void {
  for (const { id } of tables.accounts) checkAccount(id, operations, tables, add)
}

interface ReportedBalance {
  readonly operation: Operation
  readonly sentMs: number
  readonly doneMs: number
  readonly balanceMinor: bigint
}

function checkAccount(
  accountId: string,
  operations: readonly Operation[],
  tables: Tables,
  add: Add,
): void {
  const entries = tables.entries.filter((entry) => entry.accountId === accountId)
  const balances = [0n, ...entries.map(({ balanceAfterMinor }) => balanceAfterMinor)]
  for (const reported of reportedTo(accountId, operations)) {
    const { operation, balanceMinor } = reported
    const { intent, style } = operation
    const subject = `${intent.kind} of ${accountId}`
    if (intent.kind === 'read balance') {
      if (!balances.includes(balanceMinor)) {
        add(subject, `got ${balanceMinor}, which the balance never was: ${balances.join()}`)
      }
    } else if (intent.kind === 'deposit' && isBooked(style)) {
      const own = entries.find((entry) => isOf(intent, entry))
      if (own && operation.key !== undefined && own.balanceAfterMinor !== balanceMinor) {
        add(subject, `got ${balanceMinor}, but the balance after it was ${own.balanceAfterMinor}`)
      }
    } else if (intent.kind === 'deposit') {
      const others = sumsOf(requestedBeside(accountId, operation, operations))
      const base = balances.map((balance) => balance + BigInt(intent.amountMinor))
      if (!base.some((sum) => hasSum(others, balanceMinor - sum))) {
        add(subject, `got ${balanceMinor}, which no ledger entry and open deposits explain`)
      }
    }
  }
  checkReads(reportedTo(accountId, operations), { accountId, entries }, balances, add)
}

/**
 * Successive reads move forward in the ledger: a read never returns a balance from before an earlier read, or from
 * before a deposit whose response had already arrived.
 */
function checkReads(
  reported: readonly ReportedBalance[],
  { accountId, entries }: { accountId: string; entries: Tables['entries'] },
  balances: readonly bigint[],
  add: Add,
): void {
  const known: { doneMs: number; place: number }[] = []
  for (const { operation, sentMs, doneMs, balanceMinor } of reported.toSorted(byResponse)) {
    const { intent, style } = operation
    const before = known.filter((one) => one.doneMs <= sentMs).map(({ place }) => place)
    if (intent.kind === 'read balance') {
      const place = balances.indexOf(balanceMinor, Math.max(0, ...before))
      if (place < 0) return add(`account ${accountId}`, `went back to ${balanceMinor}`)
      known.push({ doneMs, place })
    } else if (intent.kind === 'deposit' && isBooked(style)) {
      const own = entries.findIndex((entry) => isOf(intent, entry))
      known.push({ doneMs, place: own + 1 })
    }
  }
}

const isBooked = (style: InteractionStyle) => flowOf(style).deposit === 'booked'
const byResponse = (a: ReportedBalance, b: ReportedBalance) => a.doneMs - b.doneMs

const isOf = (intent: { amountMinor: number }, { kind, amountMinor }: Tables['entries'][number]) =>
  kind === 'DEPOSIT' && amountMinor === BigInt(intent.amountMinor)

function reportedTo(accountId: string, operations: readonly Operation[]): ReportedBalance[] {
  return operations.flatMap((operation) => {
    const { intent } = operation
    if (intent.kind !== 'deposit' && intent.kind !== 'read balance') return []
    if (intent.accountId !== accountId) return []
    return operation.attempts.flatMap((attempt) => {
      const { response, sentMs, doneMs } = attempt
      if (response?.status !== 200 || !isFinal(attempt) || !isReadable(intent, response)) return []
      const units = typeof response.body === 'number' ? response.body : balanceOf(response.body)
      return [{ operation, sentMs, doneMs, balanceMinor: BigInt(Math.round(units * 100)) }]
    })
  })
}

const balanceOf = (body: unknown) => (body as { balance: number }).balance

/** The amounts of other deposits that may have been promised and not yet booked. */
function requestedBeside(
  accountId: string,
  own: Operation,
  operations: readonly Operation[],
): bigint[] {
  return operations.flatMap((operation) => {
    const { intent, style, attempts, key } = operation
    if (operation === own && key !== undefined) return []
    if (intent.kind !== 'deposit' || intent.accountId !== accountId || isBooked(style)) return []
    // Without a key, every attempt is a deposit of its own, and so is its duplicate if the network delivers it twice.
    const times = key === undefined ? 2 * attempts.length : 1
    return Array.from({ length: times }, () => BigInt(intent.amountMinor))
  })
}

/**
 * The sums of all subsets of the parts, including the empty one, as a bit set: bit n is set if some subset has the
 * sum n. A `Set` of the sums could double in size with each part.
 */
export function sumsOf(parts: readonly bigint[]): bigint {
  return parts.reduce((sums, part) => sums | (sums << part), 1n)
}

const hasSum = (sums: bigint, sum: bigint) => sum >= 0n && ((sums >> sum) & 1n) === 1n
