import type { BenchStack } from '../bench-stack.ts'
import { accountIds, openBooks } from '../books.ts'
import type { Bench, Contest, Pace, Run } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import type { BareAppTask } from '../programs/bare-fastify.ts'
import type { Load, LoadResult } from '../programs/load.ts'

const CONNECTIONS = 64
const ACCOUNTS = 1_000
/** The same number as pgbench's clients. */
const DATABASE_CONNECTIONS = 16

/** POST /orders in `events`, while the billing and notification services are not running. */
export const ACCEPT: Bench = {
  name: 'accept',
  ours: `POST /orders answered, order service alone, ${CONNECTIONS} connections`,
  reference: `bare Fastify app, same inserts, a commit per request, ${DATABASE_CONNECTIONS} database connections`,
  unit: 'orders/s',
  reach: 2,
  aim: 3,
  open: openAccept,
}

async function openAccept(stack: BenchStack, pace: Pace): Promise<Contest> {
  const running = await stack.serve(['order'])
  const customers = await startMeasured<Load, LoadResult>('load.ts')
  const bare = await startMeasured<BareAppTask, string>('bare-fastify.ts')
  const { reference: databaseUrl } = stack.urls
  const bareUrl = await bare.run({ databaseUrl, connections: DATABASE_CONNECTIONS })
  const accounts = accountIds(ACCOUNTS)

  async function placeOrders(url: string): Promise<Run> {
    const { seconds } = pace
    const load = { url, style: 'events', connections: CONNECTIONS, accounts, seconds }
    const result = await customers.run(load)
    if (Object.keys(result.rejected).length > 0) {
      throw new Error(`orders were rejected: ${JSON.stringify(result.rejected)}`)
    }
    return { figure: result.accepted / result.seconds }
  }

  return {
    async ours() {
      await openBooks(stack.urls, ACCOUNTS)
      return placeOrders(running.urls.order)
    },
    async reference() {
      await openBooks(
        { order: databaseUrl, billing: databaseUrl, notification: databaseUrl },
        ACCOUNTS,
      )
      return placeOrders(bareUrl)
    },
    async close() {
      await bare.close()
      await customers.close()
      await stack.discardWork()
    },
  }
}
