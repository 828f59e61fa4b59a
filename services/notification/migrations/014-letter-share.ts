import type { Migration } from '../../../platform/database/migrate.ts'

/**
 * For each address, the last hour in which a letter was written to it, and the number of letters in that
 * hour.
 */
export const letterShare: Migration = {
  id: 14,
  name: 'letter share',
  sql: `
create table notification.letter_share (
  email text primary key,
  hour timestamptz(0) not null,
  letters integer not null
) with (fillfactor = 50);
`,
}
