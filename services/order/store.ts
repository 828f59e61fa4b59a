import type { Reason } from '../../contracts/events.ts'
import type { Page } from '../../contracts/http.ts'
import { FLOWS, type InteractionStyle, STYLES } from '../../contracts/style.ts'
import type { TraceContext } from '../../contracts/trace-context.ts'
import type { Queryable } from '../../platform/database/database.ts'
import type { Order, OrderState } from './order.ts'

/** The SQL of the order service: statements on whole batches, in the schema `orders`. */
export interface StoredOrder extends Order {
  readonly orderNumber: bigint
  readonly created: Date
  readonly updated: Date
}

const ORDER = `id, profile_id as "profileId", order_number as "orderNumber",
  product_quantity as "productQuantity", price_minor as "priceMinor", style, state, reason,
  idempotency_key as "idempotencyKey", created, updated`

const byId = (orders: readonly StoredOrder[]) => new Map(orders.map((order) => [order.id, order]))

/**
 * Inserts PENDING orders, and for each order a row in the table `watch`, with the trace context of the
 * request that placed it.
 */
export async function insertOrders(
  tx: Queryable,
  orders: readonly (Order & TraceContext)[],
  times: { readonly now: number; readonly resendAt: number; readonly deadline: number },
): Promise<void> {
  if (orders.length === 0) return
  await tx.query(
    `with placed as (
       insert into orders.orders (id, profile_id, product_quantity, price_minor, style, state,
         idempotency_key, created, updated)
       select id, profile_id, product_quantity, price_minor, style, 'PENDING', key, $7, $7
       from unnest($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], $5::text[], $6::text[])
         as o (id, profile_id, product_quantity, price_minor, style, key))
     insert into orders.watch (order_id, ask_at, deadline, traceparent, tracestate)
     select id, $8, $9, traceparent, tracestate
     from unnest($1::uuid[], $10::text[], $11::text[]) as o (id, traceparent, tracestate)`,
    [
      orders.map((order) => order.id),
      orders.map((order) => order.profileId),
      orders.map((order) => order.productQuantity),
      orders.map((order) => order.priceMinor),
      orders.map((order) => order.style),
      orders.map((order) => order.idempotencyKey),
      new Date(times.now),
      new Date(times.resendAt),
      new Date(times.deadline),
      orders.map(({ traceparent }) => traceparent ?? null),
      orders.map(({ tracestate }) => tracestate ?? null),
    ],
  )
}

export async function findOrders(
  db: Queryable,
  ids: readonly string[],
): Promise<Map<string, StoredOrder>> {
  if (ids.length === 0) return new Map()
  return byId(
    await db.query<StoredOrder>(`select ${ORDER} from orders.orders where id = any($1::uuid[])`, [
      ids,
    ]),
  )
}

/** Locks orders in ascending order of their ids, so that concurrent batches cannot deadlock. */
export async function lockOrders(
  tx: Queryable,
  ids: readonly string[],
): Promise<Map<string, StoredOrder>> {
  if (ids.length === 0) return new Map()
  return byId(
    await tx.query<StoredOrder>(
      `select ${ORDER} from orders.orders where id = any($1::uuid[]) order by id for update`,
      [ids],
    ),
  )
}

export interface OrderChange {
  readonly id: string
  readonly to: OrderState
  readonly reason: Reason | null
}

/** Writes the new states of locked orders, and removes these orders from the table `watch`. */
export async function changeOrders(
  tx: Queryable,
  changes: readonly OrderChange[],
  now: number,
): Promise<void> {
  if (changes.length === 0) return
  await tx.query(
    `with settled as (delete from orders.watch where order_id = any($1::uuid[]))
     update orders.orders o set state = c.target, reason = c.reason, updated = $4
     from unnest($1::uuid[], $2::text[], $3::text[]) as c (id, target, reason)
     where o.id = any($1::uuid[]) and o.id = c.id`,
    [
      changes.map(({ id }) => id),
      changes.map(({ to }) => to),
      changes.map(({ reason }) => reason),
      new Date(now),
    ],
  )
}

/** A profile's orders, newest first. The cursor is the lowest order number on the previous page. */
export function listOrders(
  db: Queryable,
  profileId: string,
  { limit, cursor }: Page,
): Promise<StoredOrder[]> {
  return db.query<StoredOrder>(
    `select ${ORDER} from orders.orders
     where profile_id = $1 and order_number < $2 order by order_number desc limit $3`,
    [profileId, BigInt(cursor ?? '9223372036854775807'), limit],
  )
}

export interface PendingOrders {
  readonly style: InteractionStyle
  readonly orders: bigint
  readonly oldest: Date
}

/** How many orders are PENDING and when the oldest was placed, for each style that has PENDING orders. */
export function countPending(db: Queryable): Promise<PendingOrders[]> {
  return db.query(
    `select style, count(*) as orders, min(created) as oldest
     from orders.orders where id in (select order_id from orders.watch) group by style`,
  )
}

/** The trace columns of the tables `watch` and `void_watch`. */
interface WatchedTrace {
  traceparent: string | null
  tracestate: string | null
}

const toTrace = ({ traceparent, tracestate }: WatchedTrace): TraceContext => ({
  ...(traceparent && { traceparent }),
  ...(tracestate && { tracestate }),
})

/** Whether any order may have to be resent or canceled, now or later. */
export async function isAnyWatched(db: Queryable): Promise<boolean> {
  const [row] = await db.query<{ is_any: boolean }>(
    `select exists (select from orders.watch) or exists (select from orders.void_watch) as is_any`,
  )
  return row!.is_any
}

/** PENDING orders that are past their deadline, each with its trace context. */
export async function overdueOrders(
  db: Queryable,
  now: number,
  limit: number,
): Promise<{ orderId: string; trace: TraceContext }[]> {
  const rows = await db.query<{ order_id: string } & WatchedTrace>(
    'select order_id, traceparent, tracestate from orders.watch where deadline <= $1 limit $2',
    [new Date(now), limit],
  )
  return rows.map((row) => ({ orderId: row.order_id, trace: toTrace(row) }))
}

/**
 * Records in the table `void_watch` that canceled orders need their void confirmed. An order already in it
 * stays unchanged.
 */
export async function watchVoids(
  tx: Queryable,
  voids: readonly { readonly orderId: string; readonly trace: TraceContext }[],
  resendAt: number,
): Promise<void> {
  if (voids.length === 0) return
  await tx.query(
    `insert into orders.void_watch (order_id, ask_at, traceparent, tracestate)
     select id, $2, traceparent, tracestate
     from unnest($1::uuid[], $3::text[], $4::text[]) as v (id, traceparent, tracestate)
     on conflict do nothing`,
    [
      voids.map(({ orderId }) => orderId),
      new Date(resendAt),
      voids.map(({ trace }) => trace.traceparent ?? null),
      voids.map(({ trace }) => trace.tracestate ?? null),
    ],
  )
}

/**
 * Removes orders from the table `void_watch` once the billing service holds no money for them and never will.
 */
export async function confirmVoids(tx: Queryable, orderIds: readonly string[]): Promise<void> {
  if (orderIds.length === 0) return
  await tx.query('delete from orders.void_watch where order_id = any($1::uuid[])', [orderIds])
}

/** When requests are resent: after intervals that double from `afterMs` up to `maxAfterMs`. */
export interface ResendSchedule {
  readonly afterMs: number
  readonly maxAfterMs: number
  /**
   * An order whose void is not confirmed after this number of attempts is stuck, and its void is resent once
   * an hour.
   */
  readonly stuckAfter: number
  /** The maximum number of orders that one statement takes. */
  readonly limit: number
}

export interface OrderToResend {
  readonly order: StoredOrder
  readonly trace: TraceContext
  /** How many times this order has come due for a resend, including this time. */
  readonly attempts: number
  /** The order's last request is still in the outbox, so there is no need to write another one. */
  readonly isInOutbox: boolean
  /** The deadline of a PENDING order, in epoch milliseconds. */
  readonly deadlineMs?: number
}

/**
 * Takes the orders that are due for a resend, of their payment request if they are PENDING or of their void
 * if they are CANCELED, and schedules the next resend of each. An order's last request counts as still in the
 * outbox if the oldest outbox row is not newer than that request. Comparing the times reads one row instead
 * of the whole outbox.
 *
 * `= any(array(...))` makes the planner find each row by its id. Written as a plain join and planned while
 * the tables were small, this statement read whole tables, once or even once per due order. After an outage,
 * it held its locks for so long that no order could be settled for a minute.
 */
export async function takeOrdersToResend(
  tx: Queryable,
  now: number,
  { afterMs, maxAfterMs, stuckAfter, limit }: ResendSchedule,
  state: 'PENDING' | 'CANCELED' = 'PENDING',
): Promise<OrderToResend[]> {
  const maxAttempts = state === 'CANCELED' ? stuckAfter : MAX_INTEGER
  const params = [new Date(now), afterMs, maxAfterMs, limit, state, maxAttempts, PAID_BY_CALL]
  const rows = await tx.query<
    StoredOrder & WatchedTrace & { attempts: number; isInOutbox: boolean; deadline: Date | null }
  >(TAKE_TO_RESEND[state], params)
  return rows.map(({ traceparent, tracestate, attempts, isInOutbox, deadline, ...order }) => ({
    order,
    trace: toTrace({ traceparent, tracestate }),
    attempts,
    isInOutbox,
    ...(deadline && { deadlineMs: deadline.getTime() }),
  }))
}

const MAX_INTEGER = 2_147_483_647
const PAID_BY_CALL = STYLES.filter((style) => FLOWS[style].payment === 'call')

/**
 * SQL for the milliseconds from a resend to the next resend, given an expression for the number of earlier
 * resends.
 */
const intervalMs = (resends: string) =>
  `case when ${resends} + 1 >= $6::integer then 3600000
    else least($3::float8, $2::float8 * power(2, least(${resends}, 20))) end`

const takeToResend = (watch: 'orders.watch' | 'orders.void_watch', deadline: string) => `
with due as (
  select order_id, traceparent, tracestate, asked + 1 as attempts, ${deadline} as deadline,
    ask_at - (${intervalMs('greatest(asked - 1, 0)')}) * interval '1 millisecond' as requested
  from ${watch} where ask_at <= $1
  order by ask_at limit $4 for update skip locked),
put_off as (
  update ${watch} w set asked = asked + 1,
    ask_at = $1::timestamptz + (${intervalMs('asked')}) * interval '1 millisecond'
  where w.order_id = any(array(select order_id from due))),
waiting as (
  select carrier, (select created from orders.outbox o where o.carrier = c.carrier order by id limit 1) as oldest
  from (values ('broker'), ('http')) as c (carrier))
select ${ORDER}, traceparent, tracestate, attempts, deadline, exists (
    select from waiting
    where carrier = case when style = any($7::text[]) then 'http' else 'broker' end
      and oldest <= requested) as "isInOutbox"
from orders.orders o join due on id = order_id
where id = any(array(select order_id from due)) and state = $5`

const TAKE_TO_RESEND = {
  PENDING: takeToResend('orders.watch', 'deadline'),
  CANCELED: takeToResend('orders.void_watch', 'null::timestamptz'),
}

/** An order that waits for the billing service, as operators see it. */
export interface WaitingOrder {
  readonly order: StoredOrder
  readonly waitsFor: 'payment' | 'void'
  readonly attempts: number
  readonly nextAttempt: Date
  /** When the order will be canceled if it still has no outcome; null if it is already canceled. */
  readonly deadline: Date | null
}

export interface WaitingFilter {
  readonly waitsFor?: 'payment' | 'void'
  /** Only orders for which a resend has been due at least this many times. */
  readonly minAttempts: number
  readonly limit: number
  /** The id of the last order of the previous page. */
  readonly cursor?: string
}

/**
 * Orders that wait for the billing service, sorted by id. Ids are UUIDv7, so the oldest order comes first.
 */
export async function listWaiting(
  db: Queryable,
  { waitsFor, minAttempts, limit, cursor = LOWEST_ID }: WaitingFilter,
): Promise<WaitingOrder[]> {
  const rows = await db.query<StoredOrder & Omit<WaitingOrder, 'order'>>(LIST_WAITING, [
    cursor,
    limit,
    waitsFor ?? null,
    minAttempts,
  ])
  return rows.map(({ waitsFor, attempts, nextAttempt, deadline, ...order }) => ({
    order,
    waitsFor,
    attempts,
    nextAttempt,
    deadline,
  }))
}

const LOWEST_ID = '00000000-0000-0000-0000-000000000000'

const waiting = (watch: string, waitsFor: string, deadline: string) => `
(select order_id, asked, ask_at, ${deadline} as deadline, '${waitsFor}' as waits_for from ${watch}
 where order_id > $1::uuid and asked >= $4::integer
   and coalesce($3::text, '${waitsFor}') = '${waitsFor}'
 order by order_id limit $2)`

const LIST_WAITING = `
select ${ORDER}, waits_for as "waitsFor", asked as attempts, ask_at as "nextAttempt", deadline
from (${waiting('orders.watch', 'payment', 'deadline')}
  union all ${waiting('orders.void_watch', 'void', 'null::timestamptz')}) w
join orders.orders on id = order_id
order by order_id limit $2`

/** The number of canceled orders for whose void a resend has been due at least `minAttempts` times. */
export async function countStuck(db: Queryable, minAttempts: number): Promise<number> {
  const [row] = await db.query<{ orders: bigint }>(
    'select count(*) as orders from orders.void_watch where asked >= $1',
    [minAttempts],
  )
  return Number(row!.orders)
}
