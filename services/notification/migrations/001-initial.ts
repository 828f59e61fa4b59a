import { deadLetterTable } from '../../../messaging/dead-letters/dead-letters.ts'
import { outboxTables } from '../../../messaging/outbox/outbox.ts'
import type { Migration } from '../../../platform/database/migrate.ts'

export const SCHEMA = 'notification'

// The row of a deleted message stays, without its text, so that a redelivered event does not write the
// message again.
export const migrations: readonly Migration[] = [
  {
    id: 1,
    name: 'initial',
    sql: `
create table notification.message (
  seq bigint generated always as identity primary key,
  id uuid not null unique,
  event_id text not null unique,
  account_id uuid not null,
  event text not null,
  text text not null,
  created timestamptz(3) not null,
  deleted timestamptz(3)
);
create index message_of_account on notification.message (account_id, seq);
create table notification.account_clock (
  account_id uuid primary key,
  latest timestamptz(3) not null
) with (fillfactor = 50);
create table notification.contact (
  account_id uuid primary key,
  email text not null,
  updated timestamptz(3) not null
);
${outboxTables(SCHEMA)}
${deadLetterTable(SCHEMA)}
`,
  },
]
