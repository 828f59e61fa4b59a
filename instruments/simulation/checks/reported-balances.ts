import { flowOf, type InteractionStyle } from '../../../contracts/style.ts'
import { isFinal, type Operation } from '../world/customers.ts'
import { isReadable } from '../world/responses.ts'
import type { Add, Tables } from './tables.ts'

/**
 * Every balance that a customer was told is explained by the account's ledger. A look shows the
 * balance after some entry; so does the answer to a deposit in `http` and `hybrid`, after its own. In
 * `events` the answer is what the deposit will lead to: the balance after some entry, and deposits
 * that were requested by then and not yet booked.
 */
export function checkBalances(operations: readonly Operation[], tables: Tables, add: Add): void {
  for (const { id } of tables.accounts) checkAccount(id, operations, tables, add)
}

interface ToldBalance {
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
  for (const told of toldOf(accountId, operations)) {
    const { operation, balanceMinor } = told
    const { intent, style } = operation
    const subject = `${intent.kind} of ${accountId}`
    if (intent.kind === 'read balance') {
      if (!balances.includes(balanceMinor)) {
        add(subject, `was told ${balanceMinor}, which it never was: ${balances.join()}`)
      }
    } else if (intent.kind === 'deposit' && isBooked(style)) {
      const own = entries.find((entry) => isOf(intent, entry))
      if (own && operation.key !== undefined && own.balanceAfterMinor !== balanceMinor) {
        add(subject, `was told ${balanceMinor}, but left ${own.balanceAfterMinor}`)
      }
    } else if (intent.kind === 'deposit') {
      const others = sumsOf(requestedBeside(accountId, operation, operations))
      const base = balances.map((balance) => balance + BigInt(intent.amountMinor))
      if (!base.some((sum) => hasSum(others, balanceMinor - sum))) {
        add(subject, `was told ${balanceMinor}, which no entry and requests explain`)
      }
    }
  }
  checkLooks(toldOf(accountId, operations), { accountId, entries }, balances, add)
}

/**
 * One look after another goes on in the ledger, never back, nor to before a deposit that was answered by
 * then.
 */
function checkLooks(
  told: readonly ToldBalance[],
  { accountId, entries }: { accountId: string; entries: Tables['entries'] },
  balances: readonly bigint[],
  add: Add,
): void {
  const known: { doneMs: number; place: number }[] = []
  for (const { operation, sentMs, doneMs, balanceMinor } of told.toSorted(byAnswer)) {
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
const byAnswer = (a: ToldBalance, b: ToldBalance) => a.doneMs - b.doneMs

const isOf = (intent: { amountMinor: number }, { kind, amountMinor }: Tables['entries'][number]) =>
  kind === 'DEPOSIT' && amountMinor === BigInt(intent.amountMinor)

function toldOf(accountId: string, operations: readonly Operation[]): ToldBalance[] {
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

/** Other deposits that may have been promised and not booked at that time. */
function requestedBeside(
  accountId: string,
  own: Operation,
  operations: readonly Operation[],
): bigint[] {
  return operations.flatMap((operation) => {
    const { intent, style, attempts, key } = operation
    if (operation === own && key !== undefined) return []
    if (intent.kind !== 'deposit' || intent.accountId !== accountId || isBooked(style)) return []
    // Without a key every request, and each copy of it on the way, is another deposit.
    const times = key === undefined ? 2 * attempts.length : 1
    return Array.from({ length: times }, () => BigInt(intent.amountMinor))
  })
}

/**
 * All sums of some of the parts, none of them included, as a set of bits: bit n is set where n is such a
 * sum. A set of the sums themselves would double with each part.
 */
export function sumsOf(parts: readonly bigint[]): bigint {
  return parts.reduce((sums, part) => sums | (sums << part), 1n)
}

const hasSum = (sums: bigint, sum: bigint) => sum >= 0n && ((sums >> sum) & 1n) === 1n
