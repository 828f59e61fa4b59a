import type { Queryable } from '../../platform/database.ts'
import type { Finding } from './books.ts'

/**
 * Watches what order asks of billing. A canceled order must never ask for its payment: a billing that does not
 * deduplicate would charge the customer again. Only the database can tell which came first, since a request
 * that was sent before the cancellation may be delivered, and delivered again, after it. So a trigger notes
 * each request whose order is canceled when it is written to the outbox.
 */
export const WATCH_REQUESTED_PAYMENTS = `
create schema simulation;
create table simulation.canceled_order_asked (order_id uuid not null);
create function simulation.note_request() returns trigger language plpgsql as $$
begin
  insert into simulation.canceled_order_asked
  select id from orders.orders
  where id = split_part(new.event_id, '/', 1)::uuid and state = 'CANCELED';
  return null;
end $$;
create trigger note_request after insert on orders.outbox for each row
when (new.event_id like '%/ORDER_CREATED') execute function simulation.note_request();`

export async function checkRequestedPayments(db: Queryable): Promise<Finding[]> {
  const rows = await db.query<{ id: string; times: number }>(
    `select order_id as id, count(*)::integer as times
     from simulation.canceled_order_asked group by order_id`,
  )
  return rows.map(({ id, times }) => ({
    invariant: 'history',
    subject: `order ${id}`,
    sentence: `asked for its payment ${times} times after it was canceled`,
  }))
}
