import { shared } from '../../platform/async/coalesce.ts'
import type { Database } from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import type { Carrier, Outbox } from './outbox.ts'

/**
 * Reports the rows that wait in an outbox at each scrape, and creates the counters of its relay with the value
 * zero. Prometheus' rate() misses the first event if a counter first appears with the value 1.
 */
export function observeOutbox(
  parts: {
    readonly outbox: Outbox
    readonly database: Database
    readonly telemetry: Telemetry
  },
  carriers: readonly Carrier[],
): void {
  const { outbox, database, telemetry } = parts
  // A scrape reads both gauges concurrently, so they share one query.
  const read = shared(() => outbox.depth(database))
  telemetry.gauge('trifold_outbox_rows', async () => {
    const rows = new Map<Carrier, number>(carriers.map((carrier) => [carrier, 0]))
    for (const { carrier, rows: waiting } of await read()) rows.set(carrier, Number(waiting))
    return [...rows].map(([carrier, value]) => ({ labels: { carrier }, value }))
  })
  telemetry.gauge('trifold_outbox_oldest_seconds', async () => {
    const depth = await read()
    return Math.max(0, ...depth.map((carrier) => carrier.oldestSeconds))
  })
  for (const carrier of carriers) {
    telemetry.count('trifold_outbox_delivered_total', { carrier }, 0)
    telemetry.count('trifold_outbox_failures_total', { carrier }, 0)
  }
  telemetry.count('trifold_dead_letters_total', { source: 'outbox' }, 0)
}
