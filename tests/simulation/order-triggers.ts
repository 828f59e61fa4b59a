import type { Queryable } from '../../platform/database.ts'
import type { Finding } from './books.ts'

/**
 * Watches what order writes for others when it cancels an order. Only the database can tell: a request that was
 * sent before the cancellation may be delivered, and delivered again, after it; and a customer may hear of the
 * cancellation from billing as well, much later.
 *
 * - A canceled order must never ask for its payment: a billing that does not deduplicate would charge the
 *   customer again.
 * - A canceled order stays canceled: it must not be approved in between.
 * - A PENDING order that order cancels by itself must be announced by order, whether billing is there or not.
 */
export const ORDER_TRIGGERS = `
create schema simulation;
create table simulation.asked_when_canceled (order_id uuid not null);
create table simulation.canceled_by_order (order_id uuid not null);
create table simulation.revived (order_id uuid not null);
create table simulation.failure_announced (order_id uuid not null);

create function simulation.note_outbox() returns trigger language plpgsql as $$
declare
  subject uuid = split_part(new.event_id, '/', 1);
begin
  if new.event_id like '%/PAYMENT_FAIL' then
    insert into simulation.failure_announced values (subject);
  elsif exists (select from orders.orders o where o.id = subject and state = 'CANCELED') then
    insert into simulation.asked_when_canceled values (subject);
  end if;
  return null;
end $$;
create trigger note_outbox after insert on orders.outbox for each row
when (new.event_id like '%/PAYMENT_FAIL' or new.event_id like '%/ORDER_CREATED')
execute function simulation.note_outbox();

create function simulation.note_state() returns trigger language plpgsql as $$
begin
  if old.state = 'CANCELED' then
    insert into simulation.revived values (new.id);
  else
    insert into simulation.canceled_by_order values (new.id);
  end if;
  return null;
end $$;
create trigger note_state after update on orders.orders for each row
when (old.state = 'CANCELED' and new.state <> 'CANCELED'
  or old.state = 'PENDING' and new.state = 'CANCELED'
    and new.reason in ('DEADLINE_PASSED', 'DELETED', 'BILLING_UNREACHABLE'))
execute function simulation.note_state();`

export async function checkOrderTriggers(db: Queryable): Promise<Finding[]> {
  const asked = await db.query<{ id: string }>(
    'select distinct order_id as id from simulation.asked_when_canceled order by 1',
  )
  const revived = await db.query<{ id: string }>(
    'select distinct order_id as id from simulation.revived order by 1',
  )
  const silent = await db.query<{ id: string }>(
    `select order_id as id from simulation.canceled_by_order
     except select order_id from simulation.failure_announced order by 1`,
  )
  const finding =
    (sentence: string) =>
    ({ id }: { id: string }): Finding => ({
      ...{ invariant: 'history', subject: `order ${id}`, sentence },
    })
  return [
    ...asked.map(finding('asked for its payment after it was canceled')),
    ...revived.map(finding('was canceled, and then was not')),
    ...silent.map(finding('was canceled by order, which did not announce it')),
  ]
}
