import type { Migration } from '../../../platform/database/migrate.ts'

/** The number of letters to each address in its latest hour. */
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
