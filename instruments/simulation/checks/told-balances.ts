import { flowOf, type InteractionStyle } from '../../../contracts/style.ts'
import { isReadable } from '../world/answers.ts'
import { type Deed, isFinal } from '../world/customers.ts'
import type { Add, Books } from './books.ts'

/**
 * Every balance that a customer was told is explained by the account's ledger. A look shows the
 * balance after some entry; so does the answer to a deposit in `http` and `hybrid`, after its own. In
 * `events` the answer is what the deposit will lead to: the balance after some entry, and deposits
 * that were requested by then and not yet booked.
 */
export function checkBalances(deeds: readonly Deed[], books: Books, add: Add): void {
  for (const { id } of books.accounts) checkAccount(id, deeds, books, add)
}

interface ToldBalance {
  readonly deed: Deed
  readonly sentMs: number
  readonly answeredMs: number
  readonly balanceMinor: bigint
}

function checkAccount(accountId: string, deeds: readonly Deed[], books: Books, add: Add): void {
  const entries = books.entries.filter((entry) => entry.accountId === accountId)
  const balances = [0n, ...entries.map(({ balanceAfterMinor }) => balanceAfterMinor)]
  for (const told of toldOf(accountId, deeds)) {
    const { deed, balanceMinor } = told
    const { wish, style } = deed
    const subject = `${wish.kind} of ${accountId}`
    if (wish.kind === 'look at balance') {
      if (!balances.includes(balanceMinor)) {
        add(subject, `was told ${balanceMinor}, which it never was: ${balances.join()}`)
      }
    } else if (wish.kind === 'deposit' && isBooked(style)) {
      const own = entries.find((entry) => isOf(wish, entry))
      if (own && deed.key !== undefined && own.balanceAfterMinor !== balanceMinor) {
        add(subject, `was told ${balanceMinor}, but left ${own.balanceAfterMinor}`)
      }
    } else if (wish.kind === 'deposit') {
      const others = sumsOf(requestedBeside(accountId, deed, deeds))
      const base = balances.map((balance) => balance + BigInt(wish.amountMinor))
      if (!base.some((sum) => hasSum(others, balanceMinor - sum))) {
        add(subject, `was told ${balanceMinor}, which no entry and requests explain`)
      }
    }
  }
  checkLooks(toldOf(accountId, deeds), { accountId, entries }, balances, add)
}

/**
 * One look after another goes on in the ledger, never back, nor to before a deposit that was answered by
 * then.
 */
function checkLooks(
  told: readonly ToldBalance[],
  { accountId, entries }: { accountId: string; entries: Books['entries'] },
  balances: readonly bigint[],
  add: Add,
): void {
  const known: { answeredMs: number; place: number }[] = []
  for (const { deed, sentMs, answeredMs, balanceMinor } of told.toSorted(byAnswer)) {
    const { wish, style } = deed
    const before = known.filter((one) => one.answeredMs <= sentMs).map(({ place }) => place)
    if (wish.kind === 'look at balance') {
      const place = balances.indexOf(balanceMinor, Math.max(0, ...before))
      if (place < 0) return add(`account ${accountId}`, `went back to ${balanceMinor}`)
      known.push({ answeredMs, place })
    } else if (wish.kind === 'deposit' && isBooked(style)) {
      const own = entries.findIndex((entry) => isOf(wish, entry))
      known.push({ answeredMs, place: own + 1 })
    }
  }
}

const isBooked = (style: InteractionStyle) => flowOf(style).deposit === 'booked'
const byAnswer = (a: ToldBalance, b: ToldBalance) => a.answeredMs - b.answeredMs

const isOf = (wish: { amountMinor: number }, { kind, amountMinor }: Books['entries'][number]) =>
  kind === 'DEPOSIT' && amountMinor === BigInt(wish.amountMinor)

function toldOf(accountId: string, deeds: readonly Deed[]): ToldBalance[] {
  return deeds.flatMap((deed) => {
    const { wish } = deed
    if (wish.kind !== 'deposit' && wish.kind !== 'look at balance') return []
    if (wish.accountId !== accountId) return []
    return deed.attempts.flatMap((attempt) => {
      const { answer, sentMs, answeredMs } = attempt
      if (answer?.status !== 200 || !isFinal(attempt) || !isReadable(wish, answer)) return []
      const units = typeof answer.body === 'number' ? answer.body : balanceOf(answer.body)
      return [{ deed, sentMs, answeredMs, balanceMinor: BigInt(Math.round(units * 100)) }]
    })
  })
}

const balanceOf = (body: unknown) => (body as { balance: number }).balance

/** Other deposits that may have been promised and not booked at that time. */
function requestedBeside(accountId: string, own: Deed, deeds: readonly Deed[]): bigint[] {
  return deeds.flatMap((deed) => {
    const { wish, style, attempts, key } = deed
    if (deed === own && key !== undefined) return []
    if (wish.kind !== 'deposit' || wish.accountId !== accountId || isBooked(style)) return []
    // Without a key every request, and each copy of it on the way, is another deposit.
    const times = key === undefined ? 2 * attempts.length : 1
    return Array.from({ length: times }, () => BigInt(wish.amountMinor))
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
