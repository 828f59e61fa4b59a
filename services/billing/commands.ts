import {
  type Idempotency,
  type KeyedRequest,
  keysOf,
  lookUp,
  problemResponse,
  type RepeatResult,
  repeatResult,
  type StoredRequest,
  type StoredResponse,
} from '../../chassis/idempotency.ts'
import { toUnits } from '../../contracts/money.ts'
import { type TraceContext, traceOf } from '../../contracts/trace-context.ts'
import type { Outbox, OutboxMessage } from '../../messaging/outbox/outbox.ts'
import { DatabaseError, type Queryable } from '../../platform/database/database.ts'
import {
  type Account,
  type Command,
  type Deposit,
  decide,
  type Outcome,
  type Payment,
  type Transfer,
} from './ledger.ts'
import { balanceChanged, route } from './routing.ts'
import { type Changes, findDeposits, findPayments, lockAccounts, writeChanges } from './store.ts'

/**
 * What billing does in one transaction: it locks the accounts of a batch, reads the batch's payments and
 * deposits, decides the commands one after another in memory, and writes the ledger, the outbox and the
 * responses together.
 */
export interface CommandContext {
  readonly outbox: Outbox
  readonly idempotency: Idempotency
  /** By the database's clock, in epoch milliseconds. */
  readonly now: number
}

export interface Addressed {
  readonly command: Command
  readonly keyed?: KeyedRequest | undefined
  /** The request that waits for the first attempt of the calls that the command causes. */
  readonly waiting?: { remainingMs(): number }
}

export type Applied =
  | {
      readonly kind: 'applied'
      readonly outcome: Outcome
      /** The announcements that are calls: the response waits for the first attempt of each. */
      readonly callIds: readonly string[]
      /** The payment that this command settled or refunded; undefined for a repeated command. */
      readonly changedPayment: Payment | undefined
    }
  | RepeatResult

export async function applyCommands(
  tx: Queryable,
  at: CommandContext,
  batch: readonly Addressed[],
): Promise<Applied[]> {
  const keys = batch.flatMap(({ keyed }) => (keyed ? keysOf(keyed) : []))
  const commands = batch.map(({ command }) => command)
  const [known, ledger] = await Promise.all([
    at.idempotency.find(tx, keys),
    openLedger(tx, commands),
  ])
  const messages: OutboxMessage[] = []
  const remembered: StoredRequest[] = []

  const applied = batch.map(({ command, keyed, waiting }): Applied => {
    const found = keyed && lookUp(known, keyed)
    if (keyed && found?.stored) return repeatResult(keyed, found.stored)
    const { outcome, sent, changedPayment } = ledger.apply(command, at.now)
    messages.push(...sent.map((message) => (waiting ? { ...message, waiting } : message)))
    if (found && outcome.kind !== 'refused') {
      const entry = { ...found.keyed, response: responseTo(command, outcome) }
      known.set(entry.key, entry)
      remembered.push(entry)
    }
    const calls = sent.filter(({ carrier }) => carrier === 'http')
    return {
      kind: 'applied',
      outcome,
      callIds: calls.map(({ eventId }) => eventId),
      changedPayment,
    }
  })

  const written = Promise.all([
    writeChanges(tx, ledger.changes(), at.now),
    at.outbox.enqueue(tx, [...messages, ...ledger.balances(at.now)]),
    at.idempotency.remember(tx, remembered),
  ])
  // The dead letter of a message that is refused is written in this transaction after these statements, so
  // the commit cannot be pipelined with them.
  const isRefused = (one: Applied) => one.kind === 'applied' && one.outcome.kind === 'refused'
  if (!applied.some(isRefused)) tx.last?.()
  await written
  return applied
}

/** Locks and reads the rows that a batch can change, and applies the batch's commands to them in memory. */
async function openLedger(tx: Queryable, commands: readonly Command[]) {
  const orderIds = unique(
    commands.map((command) => ('orderId' in command ? command.orderId : null)),
  )
  const named = commands.map(({ accountId }) => accountId)
  // A void may refund the account that paid, so that account is locked even if the void names another one.
  const voided = commands.flatMap((command) => (command.type === 'void' ? [command.orderId] : []))
  const refundable = voided.length > 0 ? await findPayments(tx, voided) : new Map<string, Payment>()
  const payers = [...refundable.values()].map(({ accountId }) => accountId)
  const depositIds = unique(
    commands.map((command) => ('depositId' in command ? command.depositId : null)),
  )
  // In this order: payments and deposits are read after the lock, so no other transaction can change them.
  const [accounts, payments, deposits]: [
    Map<string, Account>,
    Map<string, Payment>,
    Map<string, Deposit>,
  ] = await Promise.all([
    lockAccounts(tx, unique([...named, ...payers])),
    findPayments(tx, orderIds),
    findDeposits(tx, depositIds),
  ])
  const before = {
    accounts: new Map(accounts),
    payments: new Map(payments),
    deposits: new Map(deposits),
  }
  const transfers: Transfer[] = []
  const traces = new Map<string, TraceContext>()

  return {
    apply(command: Command, now: number) {
      const payment = 'orderId' in command ? payments.get(command.orderId) : undefined
      const deposit = 'depositId' in command ? deposits.get(command.depositId) : undefined
      const payer = command.type === 'void' ? payment?.accountId : command.accountId
      const account = accounts.get(payer ?? '')
      if (account === undefined && payment?.state === 'PAID' && command.type === 'void') {
        // The payment was written after the accounts to lock were chosen. A conflict repeats the transaction.
        throw new DatabaseError('an order was paid while it was being voided', 'conflict')
      }
      const decision = decide({ account, payment, deposit, now }, command)
      if (decision.account) {
        accounts.set(decision.account.id, decision.account)
        traces.set(decision.account.id, traceOf(command))
      }
      if (decision.payment) payments.set(decision.payment.orderId, decision.payment)
      if (decision.deposit) deposits.set(decision.deposit.id, decision.deposit)
      if (decision.transfer) transfers.push(decision.transfer)
      const { announce } = decision
      const sent = announce ? route(announce, { now, ...traceOf(command) }) : []
      return { outcome: decision.outcome, sent, changedPayment: decision.payment }
    },

    changes: (): Changes => {
      const changed = <Row>(now: ReadonlyMap<string, Row>, then: ReadonlyMap<string, Row>) => ({
        added: [...now].flatMap(([id, row]) => (then.has(id) ? [] : [row])),
        updated: [...now].flatMap(([id, row]) =>
          then.has(id) && then.get(id) !== row ? [row] : [],
        ),
      })
      const account = changed<Account>(accounts, before.accounts)
      const payment = changed<Payment>(payments, before.payments)
      const deposit = changed<Deposit>(deposits, before.deposits)
      return {
        newAccounts: account.added,
        accounts: account.updated,
        newPayments: payment.added,
        payments: payment.updated,
        newDeposits: deposit.added,
        deposits: deposit.updated,
        transfers,
      }
    },

    /** One balance event for each account whose version the batch changed. */
    balances: (now: number): OutboxMessage[] =>
      [...accounts.values()]
        .filter(({ id, version }) => before.accounts.get(id)?.version !== version)
        .map((account) => balanceChanged(account, { now, ...traces.get(account.id) })),
  }
}

const unique = (ids: readonly (string | null)[]): string[] => [
  ...new Set(ids.filter((id) => id !== null)),
]

/** The HTTP response for a command's outcome. */
export function responseTo(command: Command, outcome: Outcome): StoredResponse {
  switch (outcome.kind) {
    case 'account':
      return ok(outcome.account.id)
    case 'balance':
      return ok(toUnits(outcome.balanceMinor))
    case 'refused':
      return problemResponse(outcome.code)
    case 'payment': {
      const { orderId, id, state, reason } = outcome.payment
      if (command.type === 'void') return ok({ orderId, state })
      const details = { orderId, reason: reason ?? 'ORDER_CANCELED' }
      if (state === 'PAID') return ok(id)
      if (state !== 'REFUSED') return problemResponse('PAYMENT_VOIDED', details)
      if (reason === 'DEADLINE_PASSED') return problemResponse('PAYMENT_VOIDED', details)
      const unknown = reason === 'ACCOUNT_NOT_FOUND'
      return problemResponse(unknown ? 'ACCOUNT_NOT_FOUND' : 'NOT_ENOUGH_MONEY', details)
    }
  }
}

const ok = (body: unknown): StoredResponse => ({ status: 200, body: JSON.stringify(body) })
