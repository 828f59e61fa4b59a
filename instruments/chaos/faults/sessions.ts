import { openPostgres } from '../../../platform/postgres/postgres.ts'
import type { ServiceName } from '../../../tools/stack/options.ts'
import { sessionName } from '../../../tools/stack/services.ts'
import type { Stack } from '../../../tools/stack/stack.ts'
import type { ReplicaTarget } from './schedule.ts'

/** What PostgreSQL knows about the replicas, queried directly and not through the proxies. */
export interface Sessions {
  /** How many transactions of the replica have been open and idle for at least `forMs`. */
  idleTransactions(replica: ReplicaTarget, forMs: number): Promise<number>
  /** Milliseconds until the last lease on the service's relay lanes expires; 0 if there is none. */
  leasedMs(replica: ReplicaTarget): Promise<number>
  close(): Promise<void>
}

/** Short, because the server may be frozen, and a replica may stay frozen until the query returns. */
const LIMITS = { maxConnections: 2, connectTimeoutMs: 2_000, statementTimeoutMs: 2_000 }
const SCHEMAS = { order: 'orders', billing: 'billing', notification: 'notification' } as const

export async function openSessions(urls: Stack['databaseUrls']): Promise<Sessions> {
  const open = (url: string) => openPostgres({ ...LIMITS, url, readsWholeTables: true })
  const databases = {
    order: await open(urls.order),
    billing: await open(urls.billing),
    notification: await open(urls.notification),
  }
  return {
    async idleTransactions(replica, forMs) {
      const [service, number] = partsOf(replica)
      const [row] = await databases[service].query<{ count: number }>(
        `select count(*)::integer as count from pg_stat_activity
         where application_name = $1 and state = 'idle in transaction'
           and state_change <= clock_timestamp() - $2::integer * interval '1 ms'`,
        [sessionName(service, number), forMs],
      )
      return row!.count
    },
    async leasedMs(replica) {
      const [service] = partsOf(replica)
      const [row] = await databases[service].query<{ ms: number }>(
        `select coalesce(extract(epoch from max(until) - now()) * 1000, 0)::integer as ms
         from ${SCHEMAS[service]}.relay_member`,
      )
      return row!.ms
    },
    async close() {
      await Promise.all(Object.values(databases).map((database) => database.close()))
    },
  }
}

function partsOf(replica: ReplicaTarget): [ServiceName, number] {
  const [service, number] = replica.split(' ')
  return [service as ServiceName, Number(number)]
}
