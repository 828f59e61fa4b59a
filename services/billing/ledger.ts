import type { Reason } from '../../contracts/events.ts'
import { MAX_BALANCE_MINOR } from '../../contracts/money.ts'
import type { InteractionStyle } from '../../contracts/style.ts'
import type { TraceContext } from '../../contracts/trace-context.ts'

/**
 * The rules of money. Money moves only by transfers. A transfer has a debit side and a credit side: one is
 * the customer's account, the other is cash (for deposits) or revenue (for payments and refunds). An order
 * never has more than one payment, and a deposit is booked once. A repeated command changes nothing and finds
 * the stored outcome. A void that arrives before the payment is stored, and the payment is then refused.
 */
export interface Account {
  readonly id: string
  readonly balanceMinor: bigint
  /**
   * Counts the changes of the balance. The transfer that makes a change has the new version as its number.
   */
  readonly version: number
  /** The sum of the deposits that the customer was promised and that are not in the balance yet. */
  readonly pendingMinor: bigint
}

export interface Payment {
  readonly id: string
  readonly orderId: string
  /** The account that pays. Null if a void arrived before the payment and did not name the account. */
  readonly accountId: string | null
  readonly amountMinor: bigint | null
  readonly state: 'PAID' | 'REFUSED' | 'VOIDED' | 'REFUNDED'
  readonly reason: Reason | null
  readonly style: InteractionStyle
}

export interface Deposit {
  readonly id: string
  readonly accountId: string
  readonly amountMinor: bigint
  readonly state: 'REQUESTED' | 'APPLIED'
  readonly style: InteractionStyle
}

export interface Transfer {
  readonly accountId: string
  readonly version: number
  readonly kind: 'DEPOSIT' | 'PAYMENT' | 'REFUND'
  readonly debit: LedgerSide
  readonly credit: LedgerSide
  readonly amountMinor: bigint
  readonly balanceAfterMinor: bigint
  readonly orderId: string | null
  readonly depositId: string | null
}
export type LedgerSide = 'customer' | 'cash' | 'revenue'

export type Command = TraceContext & {
  readonly style: InteractionStyle
  /**
   * The command arrived as a message. It may repeat an earlier command whose announcement was lost, so its
   * outcome is announced again.
   */
  readonly byMessage: boolean
} & (
    | { readonly type: 'createAccount'; readonly accountId: string }
    | {
        readonly type: 'pay'
        readonly paymentId: string
        readonly orderId: string
        readonly accountId: string
        readonly amountMinor: bigint
        /**
         * When the order service cancels the order, in epoch milliseconds. A payment that arrives later is
         * refused.
         */
        readonly deadlineMs?: number | undefined
      }
    | {
        readonly type: 'void'
        readonly paymentId: string
        readonly orderId: string
        readonly accountId: string | null
        /** The caller claims to be the order service, which may void the payment of any account. */
        readonly byOrder: boolean
      }
    | ({ readonly type: 'deposit' | 'requestDeposit' } & DepositTerms)
  )

interface DepositTerms {
  readonly depositId: string
  readonly accountId: string
  readonly amountMinor: bigint
}

/** A result to announce to the customer and to the order service, or a deposit to request. */
export type Announcement =
  | { readonly event: 'ORDER_PAID'; readonly payment: Payment }
  | { readonly event: 'PAYMENT_FAIL'; readonly payment: Payment }
  | { readonly event: 'PAYMENT_REFUNDED'; readonly payment: Payment }
  | { readonly event: 'DEPOSIT_ACCEPTED'; readonly deposit: Deposit }
  | { readonly event: 'DEPOSIT_REQUEST'; readonly deposit: Deposit }

/** The result of a command, for its sender. A refused command has changed nothing. */
export type Outcome =
  | { readonly kind: 'account'; readonly account: Account }
  | { readonly kind: 'payment'; readonly payment: Payment }
  | { readonly kind: 'balance'; readonly balanceMinor: bigint }
  | {
      readonly kind: 'refused'
      readonly code:
        | 'ACCOUNT_NOT_FOUND'
        | 'PAYMENT_MISMATCH'
        | 'DEPOSIT_MISMATCH'
        | 'BALANCE_TOO_LARGE'
    }

/** The stored rows that one command reads and can change, and the current time. */
export interface Rows {
  readonly account: Account | undefined
  readonly payment: Payment | undefined
  readonly deposit: Deposit | undefined
  /** The current time by the database's clock, in epoch milliseconds. */
  readonly now: number
}

export interface Decision {
  readonly outcome: Outcome
  readonly account?: Account
  readonly payment?: Payment
  readonly deposit?: Deposit
  readonly transfer?: Transfer
  readonly announce?: Announcement
}

export function decide(rows: Rows, command: Command): Decision {
  switch (command.type) {
    case 'createAccount': {
      const { accountId: id } = command
      const account = rows.account ?? { id, balanceMinor: 0n, version: 0, pendingMinor: 0n }
      return { account, outcome: { kind: 'account', account } }
    }
    case 'pay':
      return rows.payment ? repeatPayment(rows.payment, command) : pay(rows, command)
    case 'void':
      return rows.payment
        ? voidPayment(rows.account, rows.payment, command)
        : voidBeforePayment(command)
    case 'requestDeposit':
      return requestDeposit(rows, command)
    case 'deposit':
      return deposit(rows, command)
  }
}

type CommandOf<Type extends Command['type']> = Command & { readonly type: Type }

function pay({ account, now }: Rows, command: CommandOf<'pay'>): Decision {
  const { paymentId: id, orderId, accountId, amountMinor, style, deadlineMs = now } = command
  const terms = { id, orderId, accountId, amountMinor, style }
  const reason =
    account === undefined
      ? 'ACCOUNT_NOT_FOUND'
      : deadlineMs < now
        ? 'DEADLINE_PASSED'
        : account.balanceMinor < amountMinor
          ? 'NOT_ENOUGH_MONEY'
          : null
  if (account === undefined || reason !== null) {
    const payment: Payment = { ...terms, state: 'REFUSED', reason }
    return { ...outcomeOf(payment), payment, announce: { event: 'PAYMENT_FAIL', payment } }
  }
  const payment: Payment = { ...terms, state: 'PAID', reason: null }
  return {
    ...outcomeOf(payment),
    ...transferMoney(account, { kind: 'PAYMENT', amountMinor, orderId }),
    payment,
    announce: { event: 'ORDER_PAID', payment },
  }
}

function repeatPayment(payment: Payment, command: CommandOf<'pay'>): Decision {
  const { accountId, amountMinor } = payment
  const isSame =
    (accountId === null || accountId === command.accountId) &&
    (amountMinor === null || amountMinor === command.amountMinor)
  if (!isSame) return refused('PAYMENT_MISMATCH')
  return { ...outcomeOf(payment), ...announceAgain(payment, command) }
}

/**
 * A message may repeat an earlier one whose announcement was lost, so the outcome is announced again. The
 * announcement has the style of the payment, because announcements stay in order only within a style. If a
 * void arrived before the payment, it may have been stored without an account and with another style. In that
 * case, the account and the style of this command are used.
 */
function announceAgain(payment: Payment, command: CommandOf<'pay' | 'void'>): Partial<Decision> {
  const accountId = payment.accountId ?? command.accountId
  if (!command.byMessage || accountId === null) return {}
  const { style } = payment.state === 'VOIDED' ? command : payment
  return { announce: { event: announcementOf(payment), payment: { ...payment, accountId, style } } }
}

function announcementOf(payment: Payment): 'ORDER_PAID' | 'PAYMENT_FAIL' | 'PAYMENT_REFUNDED' {
  switch (payment.state) {
    case 'PAID':
      return 'ORDER_PAID'
    case 'REFUSED':
    case 'VOIDED':
      return 'PAYMENT_FAIL'
    case 'REFUNDED':
      return 'PAYMENT_REFUNDED'
  }
}

function voidBeforePayment(command: CommandOf<'void'>): Decision {
  const { paymentId: id, orderId, accountId, style } = command
  const state = 'VOIDED'
  const payment: Payment = {
    id,
    orderId,
    accountId,
    amountMinor: null,
    state,
    reason: 'ORDER_CANCELED',
    style,
  }
  return { ...outcomeOf(payment), payment, ...announceAgain(payment, command) }
}

/**
 * The refund goes to the account that paid. The order service may name another account, because it names its
 * customer's, and somebody else may have paid. Any other caller must name the account that paid, or none.
 */
function voidPayment(
  account: Account | undefined,
  payment: Payment,
  command: CommandOf<'void'>,
): Decision {
  const { accountId, byOrder } = command
  const isTheirs = accountId === null || (payment.accountId ?? accountId) === accountId
  if (!byOrder && !isTheirs) return refused('PAYMENT_MISMATCH')
  if (payment.state === 'PAID' && account !== undefined && payment.amountMinor !== null) {
    const refunded: Payment = { ...payment, state: 'REFUNDED' }
    const { orderId, amountMinor } = payment
    return {
      ...outcomeOf(refunded),
      ...transferMoney(account, { kind: 'REFUND', amountMinor, orderId }),
      payment: refunded,
      announce: { event: 'PAYMENT_REFUNDED', payment: refunded },
    }
  }
  return { ...outcomeOf(payment), ...announceAgain(payment, command) }
}

function requestDeposit(rows: Rows, command: CommandOf<'requestDeposit' | 'deposit'>): Decision {
  const { account, deposit: known } = rows
  const { depositId: id, accountId, amountMinor, style } = command
  if (account === undefined) return refused('ACCOUNT_NOT_FOUND')
  if (known && !isSameDeposit(known, command)) return refused('DEPOSIT_MISMATCH')
  const expectedMinor = account.balanceMinor + account.pendingMinor
  if (known) return { outcome: { kind: 'balance', balanceMinor: expectedMinor } }
  const balanceMinor = expectedMinor + amountMinor
  if (balanceMinor > MAX_BALANCE_MINOR) return refused('BALANCE_TOO_LARGE')
  const requested: Deposit = { id, accountId, amountMinor, state: 'REQUESTED', style }
  return {
    account: { ...account, pendingMinor: account.pendingMinor + amountMinor },
    deposit: requested,
    announce: { event: 'DEPOSIT_REQUEST', deposit: requested },
    outcome: { kind: 'balance', balanceMinor },
  }
}

function deposit(rows: Rows, command: CommandOf<'requestDeposit' | 'deposit'>): Decision {
  const { account, deposit: known } = rows
  const { depositId: id, accountId, amountMinor, style } = command
  if (account === undefined) return refused('ACCOUNT_NOT_FOUND')
  if (known && !isSameDeposit(known, command)) return refused('DEPOSIT_MISMATCH')
  const outcome: Outcome = { kind: 'balance', balanceMinor: account.balanceMinor }
  if (known?.state === 'APPLIED') {
    const repeated = command.byMessage && {
      announce: { event: 'DEPOSIT_ACCEPTED', deposit: known } as const,
    }
    return { outcome, ...repeated }
  }
  const expectedMinor = account.balanceMinor + account.pendingMinor + amountMinor
  if (known === undefined && expectedMinor > MAX_BALANCE_MINOR) return refused('BALANCE_TOO_LARGE')
  const applied: Deposit = { id, accountId, amountMinor, style, ...known, state: 'APPLIED' }
  const requestedMinor = known?.amountMinor ?? 0n
  const { account: credited, transfer } = transferMoney(
    { ...account, pendingMinor: account.pendingMinor - requestedMinor },
    { kind: 'DEPOSIT', amountMinor: applied.amountMinor, depositId: id },
  )
  return {
    account: credited,
    transfer,
    deposit: applied,
    announce: { event: 'DEPOSIT_ACCEPTED', deposit: applied },
    outcome: { kind: 'balance', balanceMinor: credited.balanceMinor },
  }
}

const isSameDeposit = (known: Deposit, terms: DepositTerms): boolean =>
  known.accountId === terms.accountId && known.amountMinor === terms.amountMinor

/**
 * Transfers money between the customer's account and cash (for deposits) or revenue (for payments and
 * refunds).
 */
function transferMoney(
  account: Account,
  cause: Pick<Transfer, 'kind' | 'amountMinor'> & { orderId?: string; depositId?: string },
): { account: Account; transfer: Transfer } {
  const { kind, amountMinor, orderId = null, depositId = null } = cause
  const other: LedgerSide = kind === 'DEPOSIT' ? 'cash' : 'revenue'
  const isDebit = kind === 'PAYMENT'
  const balanceMinor = account.balanceMinor + (isDebit ? -amountMinor : amountMinor)
  const version = account.version + 1
  const transfer: Transfer = {
    accountId: account.id,
    version,
    kind,
    debit: isDebit ? 'customer' : other,
    credit: isDebit ? other : 'customer',
    amountMinor,
    balanceAfterMinor: balanceMinor,
    orderId,
    depositId,
  }
  return { account: { ...account, balanceMinor, version }, transfer }
}

const outcomeOf = (payment: Payment): Decision => ({ outcome: { kind: 'payment', payment } })
const refused = (code: (Outcome & { kind: 'refused' })['code']): Decision => ({
  outcome: { kind: 'refused', code },
})
