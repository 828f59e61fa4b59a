import type { Page } from '../../contracts/http.ts'
import type { Queryable } from '../../platform/database/database.ts'
import type { Account, Deposit, Payment, Transfer } from './ledger.ts'

/** The SQL of the billing service: statements on whole batches, in the schema `billing`. */
export type StoredAccount = Account & { readonly created: Date; readonly updated: Date }
export type StoredPayment = Payment & { readonly created: Date; readonly updated: Date }

const ACCOUNT = `id, balance_minor as "balanceMinor", version, pending_minor as "pendingMinor",
  created, updated`
const PAYMENT = `id, order_id as "orderId", account_id as "accountId",
  amount_minor as "amountMinor", state, reason, style, created, updated`
const DEPOSIT = `id, account_id as "accountId", amount_minor as "amountMinor", state, style`

const byId = <Row extends { id: string }>(rows: readonly Row[]) =>
  new Map(rows.map((row) => [row.id, row]))

/** Locks accounts in ascending order of their ids, so that concurrent batches cannot deadlock. */
export async function lockAccounts(
  tx: Queryable,
  ids: readonly string[],
): Promise<Map<string, Account>> {
  if (ids.length === 0) return new Map()
  return byId(
    await tx.query<Account>(
      `select ${ACCOUNT} from billing.account where id = any($1::uuid[]) order by id for update`,
      [ids],
    ),
  )
}

export async function findAccount(db: Queryable, id: string): Promise<StoredAccount | undefined> {
  const rows = await db.query<StoredAccount>(
    `select ${ACCOUNT} from billing.account where id = $1`,
    [id],
  )
  return rows[0]
}

export async function findPayments(
  db: Queryable,
  orderIds: readonly string[],
): Promise<Map<string, StoredPayment>> {
  if (orderIds.length === 0) return new Map()
  const rows = await db.query<StoredPayment>(
    `select ${PAYMENT} from billing.payment where order_id = any($1::uuid[])`,
    [orderIds],
  )
  return new Map(rows.map((row) => [row.orderId, row]))
}

export async function findDeposits(
  tx: Queryable,
  ids: readonly string[],
): Promise<Map<string, Deposit>> {
  if (ids.length === 0) return new Map()
  return byId(
    await tx.query<Deposit>(`select ${DEPOSIT} from billing.deposit where id = any($1::text[])`, [
      ids,
    ]),
  )
}

/** The rows that a batch inserts and updates. */
export interface Changes {
  readonly newAccounts: readonly Account[]
  readonly accounts: readonly Account[]
  readonly newPayments: readonly Payment[]
  readonly payments: readonly Payment[]
  readonly newDeposits: readonly Deposit[]
  readonly deposits: readonly Deposit[]
  readonly transfers: readonly Transfer[]
}

/**
 * Writes the changes of a batch. If another transaction has inserted one of its payments or deposits since
 * the batch was read, this violates a unique key. The conflict makes the caller read and decide the whole
 * batch again.
 */
export async function writeChanges(tx: Queryable, changes: Changes, now: number): Promise<void> {
  const at = new Date(now)
  await Promise.all([
    insertAccounts(tx, changes.newAccounts, at),
    updateAccounts(tx, changes.accounts, at),
    insertPayments(tx, changes.newPayments, at),
    updatePayments(tx, changes.payments, at),
    insertDeposits(tx, changes.newDeposits, at),
    applyDeposits(tx, changes.deposits),
    insertTransfers(tx, changes.transfers, at),
  ])
}

async function insertAccounts(tx: Queryable, accounts: readonly Account[], at: Date) {
  if (accounts.length === 0) return
  await tx.query(
    `insert into billing.account (id, balance_minor, version, pending_minor, created, updated)
     select id, balance, version, pending, $5, $5
     from unnest($1::uuid[], $2::bigint[], $3::integer[], $4::bigint[])
       as a (id, balance, version, pending)`,
    [...accountColumns(accounts), at],
  )
}

async function updateAccounts(tx: Queryable, accounts: readonly Account[], at: Date) {
  if (accounts.length === 0) return
  await tx.query(
    `update billing.account a
     set balance_minor = c.balance, version = c.version, pending_minor = c.pending, updated = $5
     from unnest($1::uuid[], $2::bigint[], $3::integer[], $4::bigint[])
       as c (id, balance, version, pending)
     where a.id = any($1::uuid[]) and a.id = c.id`,
    [...accountColumns(accounts), at],
  )
}

const accountColumns = (accounts: readonly Account[]) => [
  accounts.map(({ id }) => id),
  accounts.map(({ balanceMinor }) => balanceMinor),
  accounts.map(({ version }) => version),
  accounts.map(({ pendingMinor }) => pendingMinor),
]

async function insertPayments(tx: Queryable, payments: readonly Payment[], at: Date) {
  if (payments.length === 0) return
  await tx.query(
    `insert into billing.payment
       (order_id, id, account_id, amount_minor, state, reason, style, created, updated)
     select order_id, id, account_id, amount, state, reason, style, $8, $8
     from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::text[])
       as p (order_id, id, account_id, amount, state, reason, style)`,
    [
      payments.map(({ orderId }) => orderId),
      payments.map(({ id }) => id),
      payments.map(({ accountId }) => accountId),
      payments.map(({ amountMinor }) => amountMinor),
      payments.map(({ state }) => state),
      payments.map(({ reason }) => reason),
      payments.map(({ style }) => style),
      at,
    ],
  )
}

async function updatePayments(tx: Queryable, payments: readonly Payment[], at: Date) {
  if (payments.length === 0) return
  await tx.query(
    `update billing.payment p set state = c.state, updated = $3
     from unnest($1::uuid[], $2::text[]) as c (order_id, state)
     where p.order_id = any($1::uuid[]) and p.order_id = c.order_id`,
    [payments.map(({ orderId }) => orderId), payments.map(({ state }) => state), at],
  )
}

async function insertDeposits(tx: Queryable, deposits: readonly Deposit[], at: Date) {
  if (deposits.length === 0) return
  await tx.query(
    `insert into billing.deposit (id, account_id, amount_minor, state, style, ask_at, created)
     select id, account_id, amount, state, style, $6, $6
     from unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::text[])
       as d (id, account_id, amount, state, style)`,
    [
      deposits.map(({ id }) => id),
      deposits.map(({ accountId }) => accountId),
      deposits.map(({ amountMinor }) => amountMinor),
      deposits.map(({ state }) => state),
      deposits.map(({ style }) => style),
      at,
    ],
  )
}

async function applyDeposits(tx: Queryable, deposits: readonly Deposit[]) {
  if (deposits.length === 0) return
  await tx.query(`update billing.deposit set state = 'APPLIED' where id = any($1::text[])`, [
    deposits.map(({ id }) => id),
  ])
}

async function insertTransfers(tx: Queryable, transfers: readonly Transfer[], at: Date) {
  if (transfers.length === 0) return
  await tx.query(
    `insert into billing.transfer (account_id, version, kind, debit, credit, amount_minor,
       balance_after_minor, order_id, deposit_id, created)
     select account_id, version, kind, debit, credit, amount, balance, order_id, deposit_id, $10
     from unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::bigint[],
       $7::bigint[], $8::uuid[], $9::text[])
       as t (account_id, version, kind, debit, credit, amount, balance, order_id, deposit_id)`,
    [
      transfers.map(({ accountId }) => accountId),
      transfers.map(({ version }) => version),
      transfers.map(({ kind }) => kind),
      transfers.map(({ debit }) => debit),
      transfers.map(({ credit }) => credit),
      transfers.map(({ amountMinor }) => amountMinor),
      transfers.map(({ balanceAfterMinor }) => balanceAfterMinor),
      transfers.map(({ orderId }) => orderId),
      transfers.map(({ depositId }) => depositId),
      at,
    ],
  )
}

export type StoredTransfer = Transfer & { readonly created: Date }

/** The transfers of an account, sorted by version. The cursor is the highest version on the previous page. */
export function listTransfers(
  db: Queryable,
  accountId: string,
  { limit, cursor }: Page,
): Promise<StoredTransfer[]> {
  return db.query<StoredTransfer>(
    `select account_id as "accountId", version, kind, debit, credit,
       amount_minor as "amountMinor", balance_after_minor as "balanceAfterMinor",
       order_id as "orderId", deposit_id as "depositId", created
     from billing.transfer where account_id = $1 and version > $2 order by version limit $3`,
    [accountId, Math.min(Number(cursor ?? 0), 2_147_483_647), limit],
  )
}

/** Whether any deposit request may have to be resent, now or later. */
export async function isAnyRequested(db: Queryable): Promise<boolean> {
  const [row] = await db.query<{ is_any: boolean }>(
    `select exists (select from billing.deposit where state = 'REQUESTED') as is_any`,
  )
  return row!.is_any
}

/**
 * Takes the requested deposits that are due for a resend, and schedules the next resend of each. A deposit
 * whose last request is still in the outbox is only rescheduled. `= any(array(...))` makes the planner find
 * each row by its id.
 */
export function takeDepositsToResend(
  tx: Queryable,
  now: number,
  resendAfterMs: number,
  maxResendAfterMs: number,
  limit: number,
): Promise<Deposit[]> {
  return tx.query<Deposit>(
    `with due as (
       select id, ask_at + ($2::float8
         - least($3::float8, $2::float8 * power(2, least(greatest(asked - 1, 0), 20)))) * interval '1 millisecond' as requested
       from billing.deposit
       where state = 'REQUESTED' and ask_at <= $1::timestamptz - $2::float8 * interval '1 millisecond'
       order by ask_at limit $4 for update skip locked),
     put_off as (
       update billing.deposit d set asked = d.asked + 1,
         ask_at = $1::timestamptz + (least($3::float8, $2::float8 * power(2, least(d.asked, 20))) - $2::float8) * interval '1 millisecond'
       where d.id = any(array(select id from due))),
     waiting as (
       select (select created from billing.outbox where carrier = 'broker' order by id limit 1) as oldest)
     select ${DEPOSIT} from billing.deposit join due using (id), waiting
     where id = any(array(select id from due)) and (oldest is null or requested < oldest)`,
    [new Date(now), resendAfterMs, maxResendAfterMs, limit],
  )
}
