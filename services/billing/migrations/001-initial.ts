import { idempotencyTable } from '../../../chassis/idempotency.ts'
import { deadLetterTable } from '../../../messaging/dead-letters/dead-letters.ts'
import { outboxTables } from '../../../messaging/outbox/outbox.ts'
import type { Migration } from '../../../platform/database/migrate.ts'

export const SCHEMA = 'billing'

// Cash and revenue have no balance rows, because every transaction would wait for the locks on them.
export const migrations: readonly Migration[] = [
  {
    id: 1,
    name: 'initial',
    sql: `
create table billing.account (
  id uuid primary key,
  balance_minor bigint not null check (balance_minor >= 0),
  version integer not null check (version >= 0),
  pending_minor bigint not null check (pending_minor >= 0),
  created timestamptz(3) not null,
  updated timestamptz(3) not null
) with (fillfactor = 50);
create table billing.payment (
  order_id uuid primary key,
  id uuid not null,
  account_id uuid,
  amount_minor bigint check (amount_minor > 0),
  state text not null check (state in ('PAID', 'REFUSED', 'VOIDED', 'REFUNDED')),
  reason text,
  style text not null,
  created timestamptz(3) not null,
  updated timestamptz(3) not null,
  check (state not in ('PAID', 'REFUNDED') or (account_id is not null and amount_minor is not null))
);
create table billing.deposit (
  id text primary key,
  account_id uuid not null references billing.account,
  amount_minor bigint not null check (amount_minor > 0),
  state text not null check (state in ('REQUESTED', 'APPLIED')),
  style text not null,
  ask_at timestamptz(3) not null,
  asked integer not null default 0,
  created timestamptz(3) not null
);
create index deposit_requested on billing.deposit (ask_at) where state = 'REQUESTED';
create table billing.transfer (
  account_id uuid not null references billing.account,
  version integer not null check (version > 0),
  kind text not null check (kind in ('DEPOSIT', 'PAYMENT', 'REFUND')),
  debit text not null check (debit in ('customer', 'cash', 'revenue')),
  credit text not null check (credit in ('customer', 'cash', 'revenue') and credit <> debit),
  amount_minor bigint not null check (amount_minor > 0),
  balance_after_minor bigint not null check (balance_after_minor >= 0),
  order_id uuid,
  deposit_id text,
  created timestamptz(3) not null,
  primary key (account_id, version),
  check ((kind = 'DEPOSIT') = (deposit_id is not null)),
  check ((kind = 'DEPOSIT') = (order_id is null))
);
${outboxTables(SCHEMA)}
${deadLetterTable(SCHEMA)}
${idempotencyTable(SCHEMA)}
`,
  },
]
