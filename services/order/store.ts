import type { Reason } from '../../contracts/events.ts'
import type { Page } from '../../contracts/http.ts'
import type { InteractionStyle } from '../../contracts/style.ts'
import { DatabaseError, type Queryable } from '../../platform/database.ts'
import type { Order, OrderState } from './order.ts'

/** The SQL of order: statements over whole batches, in the schema `orders`. */
export interface StoredOrder extends Order {
  readonly orderNumber: bigint
  readonly created: Date
  readonly updated: Date
}

interface OrderRow {
  id: string
  profile_id: string
  order_number: bigint
  product_quantity: number
  price_minor: bigint
  style: InteractionStyle
  state: OrderState
  reason: Reason | null
  idempotency_key: string | null
  created: Date
  updated: Date
}

const COLUMNS = `id, profile_id, order_number, product_quantity, price_minor, style, state, reason,
  idempotency_key, created, updated`

const toOrder = (row: OrderRow): StoredOrder => ({
  id: row.id,
  profileId: row.profile_id,
  orderNumber: row.order_number,
  productQuantity: row.product_quantity,
  priceMinor: row.price_minor,
  style: row.style,
  state: row.state,
  reason: row.reason,
  idempotencyKey: row.idempotency_key,
  created: row.created,
  updated: row.updated,
})

/** New orders, all PENDING, each with its entry in the watch. */
export async function insertOrders(
  tx: Queryable,
  orders: readonly Order[],
  times: { readonly now: number; readonly askAt: number; readonly deadline: number },
): Promise<void> {
  if (orders.length === 0) return
  await tx.query(
    `with placed as (
       insert into orders.orders (id, profile_id, product_quantity, price_minor, style, state,
         idempotency_key, created, updated)
       select id, profile_id, product_quantity, price_minor, style, 'PENDING', key, $7, $7
       from unnest($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], $5::text[], $6::text[])
         as o (id, profile_id, product_quantity, price_minor, style, key)
       returning id)
     insert into orders.watch (order_id, ask_at, deadline) select id, $8, $9 from placed`,
    [
      orders.map((order) => order.id),
      orders.map((order) => order.profileId),
      orders.map((order) => order.productQuantity),
      orders.map((order) => order.priceMinor),
      orders.map((order) => order.style),
      orders.map((order) => order.idempotencyKey),
      new Date(times.now),
      new Date(times.askAt),
      new Date(times.deadline),
    ],
  )
}

export async function findOrders(
  db: Queryable,
  ids: readonly string[],
): Promise<Map<string, StoredOrder>> {
  if (ids.length === 0) return new Map()
  const rows = await db.query<OrderRow>(
    `select ${COLUMNS} from orders.orders where id = any($1::uuid[])`,
    [ids],
  )
  return new Map(rows.map((row) => [row.id, toOrder(row)]))
}

export interface OrderChange {
  readonly id: string
  readonly from: OrderState
  readonly to: OrderState
  readonly reason: Reason | null
}

/**
 * Moves orders on, each from the state that was read; one that another transaction moved first makes
 * this a conflict, so that the caller reads and decides again. What is settled leaves the watch.
 */
export async function changeOrders(
  tx: Queryable,
  changes: readonly OrderChange[],
  now: number,
): Promise<void> {
  if (changes.length === 0) return
  const moved = await tx.query(
    `with moved as (
       update orders.orders o set state = c.target, reason = c.reason, updated = $5
       from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as c (id, origin, target, reason)
       where o.id = c.id and o.state = c.origin
       returning o.id),
     settled as (delete from orders.watch where order_id in (select id from moved))
     select id from moved`,
    [
      changes.map(({ id }) => id),
      changes.map(({ from }) => from),
      changes.map(({ to }) => to),
      changes.map(({ reason }) => reason),
      new Date(now),
    ],
  )
  if (moved.length !== changes.length) {
    throw new DatabaseError('an order moved meanwhile', 'conflict')
  }
}

/** A profile's orders, newest first; the cursor is the last page's smallest order number. */
export async function listOrders(
  db: Queryable,
  profileId: string,
  { limit, cursor }: Page,
): Promise<StoredOrder[]> {
  const rows = await db.query<OrderRow>(
    `select ${COLUMNS} from orders.orders
     where profile_id = $1 and order_number < $2 order by order_number desc limit $3`,
    [profileId, BigInt(cursor ?? '9223372036854775807'), limit],
  )
  return rows.map(toOrder)
}

/** Pending orders past their deadline. */
export async function overdueOrders(db: Queryable, now: number, limit: number): Promise<string[]> {
  const rows = await db.query<{ order_id: string }>(
    'select order_id from orders.watch where deadline <= $1 limit $2',
    [new Date(now), limit],
  )
  return rows.map((row) => row.order_id)
}

/**
 * Takes pending orders whose time to ask again has come and sets their next time, later each time.
 * An order whose request still waits in the outbox is not asked for twice: it is put off as well,
 * which the comparison with the outbox's oldest row decides without a look at every row.
 */
export async function takeOrdersToAsk(
  tx: Queryable,
  now: number,
  askAfterMs: number,
  maxAskAfterMs: number,
  limit: number,
): Promise<StoredOrder[]> {
  const rows = await tx.query<OrderRow>(
    `with due as (
       select order_id from orders.watch where ask_at <= $1
       order by ask_at limit $4 for update skip locked),
     put_off as (
       update orders.watch w set asked = asked + 1,
         ask_at = $1::timestamptz + least($3::float8, $2::float8 * power(2, least(asked, 20))) * interval '1 millisecond'
       where w.order_id in (select order_id from due)),
     waiting as (select carrier, min(created) as oldest from orders.outbox group by carrier)
     select ${COLUMNS} from orders.orders o
     where id in (select order_id from due) and state = 'PENDING' and not exists (
       select from waiting
       where carrier = case style when 'events' then 'broker' else 'http' end
         and oldest <= o.created)`,
    [new Date(now), askAfterMs, maxAskAfterMs, limit],
  )
  return rows.map(toOrder)
}
