import type { Migration } from '../../../platform/database/migrate.ts'

/** A resend and a cancellation at the deadline continue the trace of the request that placed the order. */
export const watchTrace: Migration = {
  id: 3,
  name: 'watch trace',
  sql: 'alter table orders.watch add column traceparent text, add column tracestate text;',
}
