import type { Reason } from '../../contracts/events.ts'
import type { InteractionStyle } from '../../contracts/style.ts'
import type { Queryable } from '../../platform/database/database.ts'
import type { Order as AuditedOrder } from '../audit/store.ts'

/**
 * The queries of `reconcile`. They return pages of rows, sorted by a key. If `since` is null, no rows are
 * skipped. No statement reads two schemas, because each schema may be in a different database.
 */
export interface Order {
  readonly id: string
  readonly profileId: string
  readonly priceMinor: bigint
  readonly style: InteractionStyle
  readonly state: 'PENDING' | 'APPROVED' | 'CANCELED'
  /** Whether the void is still being resent. If so, the order needs no repair. */
  readonly isVoidWatched: boolean
}

export function ordersAfter(
  orders: Queryable,
  after: string,
  since: Date | null,
  limit: number,
): Promise<Order[]> {
  return orders.query<Order>(
    `select id, profile_id as "profileId", price_minor as "priceMinor", style, state,
       exists (select from orders.void_watch w where w.order_id = id) as "isVoidWatched"
     from orders.orders
     where id > $1 and ($2::timestamptz is null or updated >= $2) order by id limit $3`,
    [after, since, limit],
  )
}

export function cancellationsAfter(
  orders: Queryable,
  after: string,
  since: Date | null,
  limit: number,
): Promise<AuditedOrder[]> {
  return orders.query<AuditedOrder>(
    `select id, profile_id as "profileId", price_minor as "priceMinor", style, state, reason,
       created >= (select applied from orders.migration where id = 10) as "announcesCancellation"
     from orders.orders
     where id > $1 and state = 'CANCELED' and ($2::timestamptz is null or updated >= $2)
     order by id limit $3`,
    [after, since, limit],
  )
}

export async function knownOrders(orders: Queryable, ids: readonly string[]): Promise<Set<string>> {
  const rows = await orders.query<{ id: string }>(
    'select id from orders.orders where id = any($1::uuid[])',
    [ids],
  )
  return new Set(rows.map(({ id }) => id))
}

/**
 * Accounts that must exist, because the billing service took a payment from them or refused one for lack of
 * money.
 */
export async function buyersAfter(
  orders: Queryable,
  after: string,
  since: Date | null,
  limit: number,
): Promise<string[]> {
  const rows = await orders.query<{ id: string }>(
    `select profile_id as id from orders.orders
     where profile_id > $1 and (state = 'APPROVED' or reason = 'NOT_ENOUGH_MONEY')
       and ($2::timestamptz is null or updated >= $2)
     group by profile_id order by profile_id limit $3`,
    [after, since, limit],
  )
  return rows.map(({ id }) => id)
}

export async function knownAccounts(
  billing: Queryable,
  ids: readonly string[],
): Promise<Set<string>> {
  const rows = await billing.query<{ id: string }>(
    'select id from billing.account where id = any($1::uuid[])',
    [ids],
  )
  return new Set(rows.map(({ id }) => id))
}

export interface Payment {
  readonly orderId: string
  readonly accountId: string | null
  readonly amountMinor: bigint | null
  readonly state: 'PAID' | 'REFUSED' | 'VOIDED' | 'REFUNDED'
  readonly reason: Reason | null
  readonly style: InteractionStyle
}

/**
 * Payments for orders, in one of these states. Payments made without an order are left out; each has its own
 * id as its order id.
 */
export function paymentsAfter(
  billing: Queryable,
  after: string,
  states: readonly Payment['state'][],
  since: Date | null,
  limit: number,
): Promise<Payment[]> {
  return billing.query<Payment>(
    `select order_id as "orderId", account_id as "accountId", amount_minor as "amountMinor",
       state, reason, style
     from billing.payment
     where order_id > $1 and state = any($2::text[]) and order_id <> id
       and ($3::timestamptz is null or updated >= $3) order by order_id limit $4`,
    [after, states, since, limit],
  )
}

export interface LedgerEntry {
  readonly accountId: string
  readonly version: number
  readonly kind: 'DEPOSIT' | 'PAYMENT' | 'REFUND'
  readonly orderId: string | null
  readonly depositId: string | null
  readonly amountMinor: bigint
}

/** Ledger entries, sorted by account and version. */
export function entriesAfter(
  billing: Queryable,
  after: Pick<LedgerEntry, 'accountId' | 'version'>,
  since: Date | null,
  limit: number,
): Promise<LedgerEntry[]> {
  return billing.query<LedgerEntry>(
    `select account_id as "accountId", version, kind, order_id as "orderId",
       deposit_id as "depositId", amount_minor as "amountMinor"
     from billing.transfer
     where (account_id, version) > ($1::uuid, $2::integer)
       and ($3::timestamptz is null or created >= $3)
     order by account_id, version limit $4`,
    [after.accountId, after.version, since, limit],
  )
}

const MOVES_MONEY = `event in ('DEPOSIT_ACCEPTED', 'ORDER_PAID', 'PAYMENT_REFUNDED')`

export interface Message {
  readonly seq: bigint
  readonly eventId: string
  readonly accountId: string
  readonly event: 'DEPOSIT_ACCEPTED' | 'ORDER_PAID' | 'PAYMENT_REFUNDED'
  /** The text of the message; empty if it was removed. */
  readonly text: string
}

/**
 * Messages about deposits, payments and refunds, sorted by account and by the order in which they were
 * written.
 */
export function moneyMessagesAfter(
  notification: Queryable,
  after: Pick<Message, 'accountId' | 'seq'>,
  since: Date | null,
  limit: number,
): Promise<Message[]> {
  return notification.query<Message>(
    `select seq, event_id as "eventId", account_id as "accountId", event, text
     from notification.message
     where (account_id, seq) > ($1::uuid, $2::bigint) and ${MOVES_MONEY}
       and ($3::timestamptz is null or created >= $3)
     order by account_id, seq limit $4`,
    [after.accountId, after.seq, since, limit],
  )
}

/** Which of these events have a message that was written at or after `since`. */
export async function announcedEvents(
  notification: Queryable,
  eventIds: readonly string[],
  since: Date | null,
): Promise<Set<string>> {
  const rows = await notification.query<{ eventId: string }>(
    `select event_id as "eventId" from notification.message
     where event_id = any($1::text[]) and ($2::timestamptz is null or created >= $2)`,
    [eventIds, since],
  )
  return new Set(rows.map(({ eventId }) => eventId))
}

/** Accounts that must exist, because they have a message about a deposit, a payment or a refund. */
export async function notifiedAccountsAfter(
  notification: Queryable,
  after: string,
  since: Date | null,
  limit: number,
): Promise<string[]> {
  const rows = await notification.query<{ id: string }>(
    `select account_id as id from notification.message
     where account_id > $1 and ${MOVES_MONEY} and ($2::timestamptz is null or created >= $2)
     group by account_id order by account_id limit $3`,
    [after, since, limit],
  )
  return rows.map(({ id }) => id)
}

/** Which of these accounts `notifiedAccountsAfter` would return. */
export async function notifiedAccounts(
  notification: Queryable,
  ids: readonly string[],
  since: Date | null,
): Promise<Set<string>> {
  const rows = await notification.query<{ id: string }>(
    `select distinct account_id as id from notification.message
     where account_id = any($1::uuid[]) and ${MOVES_MONEY}
       and ($2::timestamptz is null or created >= $2)`,
    [ids, since],
  )
  return new Set(rows.map(({ id }) => id))
}
