import type { Migration } from '../../../platform/database/migrate.ts'

/**
 * Stores the trace of the request that placed the order, so that a resend, or a cancellation at the deadline,
 * continues it.
 */
export const watchTrace: Migration = {
  id: 3,
  name: 'watch trace',
  sql: 'alter table orders.watch add column traceparent text, add column tracestate text;',
}
