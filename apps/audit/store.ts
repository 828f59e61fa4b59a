import type { EventName, Reason } from '../../contracts/events.ts'
import type { InteractionStyle } from '../../contracts/style.ts'
import type { Queryable } from '../../platform/database/database.ts'

/**
 * The queries of the audit. No statement reads two services' schemas, because these may be in different
 * databases. Tables of one schema are compared by a single statement, which reads one snapshot of them. Rows
 * that are compared across services are read in pages, sorted by a key.
 */
type State = 'PAID' | 'REFUSED' | 'VOIDED' | 'REFUNDED'
type Kind = 'DEPOSIT' | 'PAYMENT' | 'REFUND'

// Billing

export interface LedgerTotals {
  accounts: bigint
  transfers: bigint
  payments: bigint
  deposits: bigint
  /** Sums in minor units over all accounts, as text, because they may exceed a bigint column. */
  customers: string
  cash: string
  revenue: string
}

export async function ledgerTotals(billing: Queryable): Promise<LedgerTotals> {
  const [row] = await billing.query<LedgerTotals>(`
with side as (
  select count(*) as transfers,
    coalesce(sum(case when credit = 'cash' then amount_minor when debit = 'cash' then -amount_minor end), 0) as cash,
    coalesce(sum(case when credit = 'revenue' then amount_minor when debit = 'revenue' then -amount_minor end), 0) as revenue
  from billing.transfer
), customer as (
  select count(*) as accounts, coalesce(sum(balance_minor), 0) as customers from billing.account
)
select accounts, transfers, customers::text, cash::text, revenue::text,
  (select count(*) from billing.payment) as payments,
  (select count(*) from billing.deposit) as deposits
from side, customer`)
  return row!
}

export interface BrokenEntry {
  accountId: string
  version: number
  previousVersion: number
  kind: Kind
  debit: string
  credit: string
  /** What the entry adds to the customer's balance; 0 if neither side is the customer's account. */
  movedMinor: bigint
  balanceAfterMinor: bigint
  balanceBeforeMinor: bigint
  rightSides: boolean
}

/** Ledger entries that follow a gap, or have the wrong sides for their kind, or a wrong balance. */
export function brokenEntries(billing: Queryable, limit: number): Promise<BrokenEntry[]> {
  return billing.query<BrokenEntry>(
    `
with entry as (
  select account_id as "accountId", version, kind, debit, credit,
    coalesce(lag(version) over ledger, 0) as "previousVersion",
    case when debit = credit then 0 when credit = 'customer' then amount_minor
      when debit = 'customer' then -amount_minor else 0 end as "movedMinor",
    balance_after_minor as "balanceAfterMinor",
    coalesce(lag(balance_after_minor) over ledger, 0) as "balanceBeforeMinor",
    amount_minor > 0 and case kind
      when 'DEPOSIT' then debit = 'cash' and credit = 'customer'
      when 'PAYMENT' then debit = 'customer' and credit = 'revenue'
      when 'REFUND' then debit = 'revenue' and credit = 'customer'
      else false end as "rightSides"
  from billing.transfer window ledger as (partition by account_id order by version)
)
select * from entry
where version <> "previousVersion" + 1 or not "rightSides" or "balanceAfterMinor" < 0
  or "balanceAfterMinor" <> "balanceBeforeMinor" + "movedMinor"
order by "accountId", version limit $1`,
    [limit],
  )
}

export interface BrokenAccount {
  id: string
  version: number
  balanceMinor: bigint
  pendingMinor: bigint
  entries: bigint
  /** Sums as text, because in a broken database they may exceed a bigint column. */
  entriesMinor: string
  requestedMinor: string
}

/** Accounts whose rows do not agree with their ledger entries or their requested deposits. */
export function brokenAccounts(billing: Queryable, limit: number): Promise<BrokenAccount[]> {
  return billing.query<BrokenAccount>(
    `
with ledger as (
  select account_id, count(*) as entries, max(version) as last,
    sum(case when debit = credit then 0 when credit = 'customer' then amount_minor
      when debit = 'customer' then -amount_minor else 0 end) as entries_minor
  from billing.transfer group by account_id
), requested as (
  select account_id, sum(amount_minor) as requested_minor
  from billing.deposit where state = 'REQUESTED' group by account_id
)
select a.id, a.version, a.balance_minor as "balanceMinor", a.pending_minor as "pendingMinor",
  coalesce(entries, 0) as entries, coalesce(entries_minor, 0)::text as "entriesMinor",
  coalesce(requested_minor, 0)::text as "requestedMinor"
from billing.account a
left join ledger l on l.account_id = a.id
left join requested r on r.account_id = a.id
where a.balance_minor < 0 or a.balance_minor <> coalesce(entries_minor, 0)
  or a.version <> coalesce(entries, 0) or a.version <> coalesce(last, 0)
  or a.pending_minor <> coalesce(requested_minor, 0)
order by a.id limit $1`,
    [limit],
  )
}

export interface BrokenPayment {
  orderId: string
  state: State | null
  debits: bigint
  refunds: bigint
  sameTerms: boolean
}

/** Orders whose payment does not match their transfers in state, account or amount. */
export function brokenPayments(billing: Queryable, limit: number): Promise<BrokenPayment[]> {
  return billing.query<BrokenPayment>(
    `
with booked as (
  select coalesce(p.order_id, t.order_id) as order_id, p.state,
    count(*) filter (where t.kind = 'PAYMENT') as debits,
    count(*) filter (where t.kind = 'REFUND') as refunds,
    coalesce(bool_and(p.account_id = t.account_id and p.amount_minor = t.amount_minor), true)
      as same_terms
  from billing.payment p
  full join (select * from billing.transfer where order_id is not null) t
    on t.order_id = p.order_id
  group by 1, 2
)
select order_id as "orderId", state, debits, refunds, same_terms as "sameTerms" from booked
where not same_terms or not case state
  when 'PAID' then debits = 1 and refunds = 0
  when 'REFUNDED' then debits = 1 and refunds = 1
  when 'REFUSED' then debits = 0 and refunds = 0
  when 'VOIDED' then debits = 0 and refunds = 0
  else false end
order by order_id limit $1`,
    [limit],
  )
}

export interface BrokenDeposit {
  depositId: string
  state: 'REQUESTED' | 'APPLIED' | null
  credits: bigint
  sameTerms: boolean
}

export function brokenDeposits(billing: Queryable, limit: number): Promise<BrokenDeposit[]> {
  return billing.query<BrokenDeposit>(
    `
with booked as (
  select coalesce(d.id, t.deposit_id) as deposit_id, d.state, count(t.kind) as credits,
    coalesce(bool_and(d.account_id = t.account_id and d.amount_minor = t.amount_minor), true)
      as same_terms
  from billing.deposit d
  full join (select * from billing.transfer where deposit_id is not null) t
    on t.deposit_id = d.id
  group by 1, 2
)
select deposit_id as "depositId", state, credits, same_terms as "sameTerms" from booked
where not same_terms or not case state
  when 'APPLIED' then credits = 1
  when 'REQUESTED' then credits = 0
  else false end
order by deposit_id limit $1`,
    [limit],
  )
}

export interface Payment {
  orderId: string
  accountId: string | null
  amountMinor: bigint | null
  state: State
  style: InteractionStyle
}

const PAYMENT = `order_id as "orderId", account_id as "accountId", amount_minor as "amountMinor",
  state, style`

/** Payments sorted by order id, starting with this id. */
export function paymentsFrom(billing: Queryable, from: string, limit: number): Promise<Payment[]> {
  return billing.query<Payment>(
    `select ${PAYMENT} from billing.payment where order_id >= $1 order by order_id limit $2`,
    [from, limit],
  )
}

export function paymentsOf(billing: Queryable, orderIds: readonly string[]): Promise<Payment[]> {
  return billing.query<Payment>(
    `select ${PAYMENT} from billing.payment where order_id = any($1::uuid[])`,
    [orderIds],
  )
}

export interface Deposit {
  id: string
  accountId: string
  state: 'REQUESTED' | 'APPLIED'
  style: InteractionStyle
}

const DEPOSIT = 'id, account_id as "accountId", state, style'

export function depositsFrom(billing: Queryable, from: string, limit: number): Promise<Deposit[]> {
  return billing.query<Deposit>(
    `select ${DEPOSIT} from billing.deposit where id >= $1 order by id limit $2`,
    [from, limit],
  )
}

export function depositsOf(billing: Queryable, ids: readonly string[]): Promise<Deposit[]> {
  return billing.query<Deposit>(
    `select ${DEPOSIT} from billing.deposit where id = any($1::text[])`,
    [ids],
  )
}

export interface LedgerEntry {
  accountId: string
  version: number
  kind: Kind
  /** The id of the order or deposit that caused the entry. */
  causeId: string
  style: InteractionStyle | null
  balanceAfterMinor: bigint
}

/** Ledger entries sorted by account and version, starting after this entry. */
export function entriesAfter(
  billing: Queryable,
  after: Pick<LedgerEntry, 'accountId' | 'version'>,
  limit: number,
): Promise<LedgerEntry[]> {
  return billing.query<LedgerEntry>(
    `
select t.account_id as "accountId", t.version, t.kind, t.balance_after_minor as "balanceAfterMinor",
  coalesce(t.order_id::text, t.deposit_id) as "causeId", coalesce(p.style, d.style) as style
from (
  select * from billing.transfer where (account_id, version) > ($1::uuid, $2::integer)
  order by account_id, version limit $3
) t
left join billing.payment p on p.order_id = t.order_id
left join billing.deposit d on d.id = t.deposit_id
order by t.account_id, t.version`,
    [after.accountId, after.version, limit],
  )
}

// Orders

export interface Order {
  id: string
  profileId: string
  priceMinor: bigint
  style: InteractionStyle
  state: 'PENDING' | 'APPROVED' | 'CANCELED'
  reason: Reason | null
  /** Whether the order was placed by a version that announces cancellations. Earlier versions did not. */
  announcesCancellation: boolean
}

const ORDER = `id, profile_id as "profileId", price_minor as "priceMinor", style, state, reason,
  created >= (select applied from orders.migration where id = 10) as "announcesCancellation"`

/** Orders sorted by id, starting with this id. */
export function ordersFrom(orders: Queryable, from: string, limit: number): Promise<Order[]> {
  return orders.query<Order>(
    `select ${ORDER} from orders.orders where id >= $1 order by id limit $2`,
    [from, limit],
  )
}

export function ordersOf(orders: Queryable, ids: readonly string[]): Promise<Order[]> {
  return orders.query<Order>(`select ${ORDER} from orders.orders where id = any($1::uuid[])`, [ids])
}

export interface LateOrder {
  id: string
  state: Order['state'] | null
  deadline: Date | null
}

/**
 * Orders that are in the table `watch` but not PENDING, or PENDING but not in the table, and PENDING orders
 * with a deadline before `due` (all PENDING orders if `due` is `any time`).
 */
export function lateOrders(
  orders: Queryable,
  due: number | 'any time',
  limit: number,
): Promise<LateOrder[]> {
  return orders.query<LateOrder>(
    `
select coalesce(o.id, w.order_id) as id, o.state, w.deadline
from orders.orders o full join orders.watch w on w.order_id = o.id
where (coalesce(o.state, '') = 'PENDING') <> (w.order_id is not null)
  or (w.order_id is not null and coalesce(w.deadline < $1, true))
order by 1 limit $2`,
    [due === 'any time' ? null : new Date(due), limit],
  )
}

// Notification

export interface Message {
  seq: bigint
  id: string
  eventId: string
  accountId: string
  event: EventName
  created: Date
}

const MESSAGE = 'seq, id, event_id as "eventId", account_id as "accountId", event, created'

/** Messages sorted by account and by the order in which they were written, starting after this message. */
export function messagesAfter(
  notification: Queryable,
  after: Pick<Message, 'accountId' | 'seq'>,
  limit: number,
): Promise<Message[]> {
  return notification.query<Message>(
    `select ${MESSAGE} from notification.message
     where (account_id, seq) > ($1::uuid, $2::bigint) order by account_id, seq limit $3`,
    [after.accountId, after.seq, limit],
  )
}

export function messagesOf(
  notification: Queryable,
  eventIds: readonly string[],
): Promise<Message[]> {
  return notification.query<Message>(
    `select ${MESSAGE} from notification.message where event_id = any($1::text[])`,
    [eventIds],
  )
}

export async function knownMessages(
  notification: Queryable,
  ids: readonly string[],
): Promise<Set<string>> {
  const rows = await notification.query<{ id: string }>(
    'select id from notification.message where id = any($1::uuid[])',
    [ids],
  )
  return new Set(rows.map(({ id }) => id))
}

export function repeatedEvents(
  notification: Queryable,
  limit: number,
): Promise<{ eventId: string; messages: bigint }[]> {
  return notification.query(
    `select event_id as "eventId", count(*) as messages from notification.message
     group by event_id having count(*) > 1 limit $1`,
    [limit],
  )
}

export async function watchedOrders(orders: Queryable): Promise<bigint> {
  const [row] = await orders.query<{ watched: bigint }>(
    'select count(*) as watched from orders.watch',
  )
  return row!.watched
}

export async function watchedVoids(orders: Queryable): Promise<bigint> {
  const [row] = await orders.query<{ watched: bigint }>(
    'select count(*) as watched from orders.void_watch',
  )
  return row!.watched
}

export function requestedDeposits(
  billing: Queryable,
  limit: number,
): Promise<{ id: string; created: Date }[]> {
  return billing.query(
    `select id, created from billing.deposit where state = 'REQUESTED' order by ask_at limit $1`,
    [limit],
  )
}
