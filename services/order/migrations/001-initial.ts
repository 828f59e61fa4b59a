import { idempotencyTable } from '../../../chassis/idempotency.ts'
import { deadLetterTable } from '../../../messaging/dead-letters/dead-letters.ts'
import { outboxTables } from '../../../messaging/outbox/outbox.ts'
import type { Migration } from '../../../platform/database/migrate.ts'

export const SCHEMA = 'orders'

// fillfactor 50 leaves room in each page for the one update that every order gets.
export const migrations: readonly Migration[] = [
  {
    id: 1,
    name: 'initial',
    sql: `
create table orders.orders (
  id uuid primary key,
  profile_id uuid not null,
  order_number bigint generated always as identity,
  product_quantity integer not null check (product_quantity > 0),
  price_minor bigint not null check (price_minor > 0),
  style text not null,
  state text not null check (state in ('PENDING', 'APPROVED', 'CANCELED')),
  reason text,
  idempotency_key text,
  created timestamptz(3) not null,
  updated timestamptz(3) not null
) with (fillfactor = 50);
create index orders_of_profile on orders.orders (profile_id, order_number desc);
create table orders.watch (
  order_id uuid primary key,
  ask_at timestamptz(3) not null,
  deadline timestamptz(3) not null,
  asked integer not null default 0
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
create index watch_ask_at on orders.watch (ask_at);
${outboxTables(SCHEMA)}
${deadLetterTable(SCHEMA)}
${idempotencyTable(SCHEMA)}
`,
  },
]
