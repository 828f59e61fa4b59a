import type { Migration } from '../../../platform/database/migrate.ts'

/**
 * Canceled orders whose void the billing service has not confirmed. Voids are resent, just as payment
 * requests are, because a void can be lost on a topic or in a call.
 */
export const voidWatch: Migration = {
  id: 4,
  name: 'void watch',
  sql: `
create table orders.void_watch (
  order_id uuid primary key,
  ask_at timestamptz(3) not null,
  asked integer not null default 0,
  traceparent text,
  tracestate text
);
create index void_watch_ask_at on orders.void_watch (ask_at);
`,
}
