import type { Queryable } from '../../../platform/database/database.ts'
import type { Finding } from '../checks/tables.ts'

/**
 * Triggers that record what the services write, for rules that can be checked only at the time of the write.
 * At the end of a run, a request that was sent before a cancellation looks the same as one sent after it,
 * because requests can be delivered late or twice; a failure that the order service did not announce may have
 * been announced by the billing service much later; and a Maildir that gets the same letter twice contains it
 * once.
 */
export const DATABASE_TRIGGERS = `
create schema simulation;
create table simulation.request (order_id uuid not null, event text not null, when_canceled boolean);
create table simulation.canceled_by_order (order_id uuid not null);
create table simulation.revived (order_id uuid not null);
create table simulation.letter (event_id text not null);

create function simulation.note_request() returns trigger language plpgsql as $$
declare
  subject uuid = split_part(new.event_id, '/', 1);
begin
  insert into simulation.request values (subject, split_part(new.event_id, '/', 2),
    exists (select from orders.orders where id = subject and state = 'CANCELED'));
  return null;
end $$;
create trigger note_request after insert on orders.outbox
for each row execute function simulation.note_request();

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
execute function simulation.note_state();

create function simulation.note_letter() returns trigger language plpgsql as $$
begin
  insert into simulation.letter values (new.event_id);
  return null;
end $$;
create trigger note_letter after insert on notification.outbox for each row
when (new.carrier = 'letter') execute function simulation.note_letter();`

/** The statement of each rule finds the ids that violate the rule; the sentence describes the violation. */
const RULES: readonly (readonly [subject: string, sentence: string, statement: string])[] = [
  [
    'order',
    'requested its payment after it was canceled',
    `select distinct order_id as id from simulation.request
     where event = 'ORDER_CREATED' and when_canceled order by 1`,
  ],
  [
    'order',
    'was canceled by order without an announcement',
    `select order_id as id from simulation.canceled_by_order
     except select order_id from simulation.request where event = 'PAYMENT_FAIL' order by 1`,
  ],
  [
    'order',
    'was canceled by order, but its payment was neither voided nor refused',
    `select order_id as id from simulation.canceled_by_order
     except select order_id from simulation.request where event = 'ORDER_CANCELED'
     except select order_id from billing.payment where state = 'REFUSED' order by 1`,
  ],
  [
    'order',
    'left the state CANCELED',
    'select distinct order_id as id from simulation.revived order by 1',
  ],
  [
    'letter',
    'was written more than once',
    `select event_id as id from simulation.letter
     group by event_id having count(*) > 1 order by 1`,
  ],
]

export async function checkTriggers(db: Queryable): Promise<Finding[]> {
  const found: Finding[] = []
  for (const [subject, sentence, statement] of RULES) {
    for (const { id } of await db.query<{ id: string }>(statement)) {
      found.push({ invariant: 'history', subject: `${subject} ${id}`, sentence })
    }
  }
  return found
}
