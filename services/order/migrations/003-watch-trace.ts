import type { Migration } from '../../../platform/database/migrate.ts'

/** An order that is asked for again, or canceled at its deadline, continues the trace that it began. */
export const watchTrace: Migration = {
  id: 3,
  name: 'watch trace',
  sql: 'alter table orders.watch add column traceparent text, add column tracestate text;',
}
