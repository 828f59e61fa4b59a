import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FLOWS, type InteractionStyle } from '../../../contracts/style.ts'
import { SERVICES } from '../../../tools/stack/options.ts'
import type { BenchStack } from '../bench-stack.ts'
import { accountIds, assertBooks, markBooks, openBooks, settled, type Urls } from '../books.ts'
import type { Bench, Contest, Costs, Pace, Run } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import { pgbenchScript, runPgbench } from '../pgbench.ts'
import { type Usage, usageOf } from '../processes.ts'
import type { Load, LoadResult } from '../programs/load.ts'
import { recordOrder } from '../programs/recording.ts'

/** The whole flow of orders, against pgbench with the same statements and one order per commit. */
export interface Flow {
  readonly style: InteractionStyle
  readonly connections: number
  readonly accounts: number
}

const PGBENCH_CLIENTS = 16
const ACCOUNTS = 1_000
export const SETTLE_LIMIT_MS = 120_000

const PGBENCH = `pgbench: the same statements, four commits per order, ${PGBENCH_CLIENTS} clients`

export const EVENTS: Flow = { style: 'events', connections: 256, accounts: ACCOUNTS }

/** Each style gets as many connections as it needs to reach its highest rate. */
export function flowOf(style: InteractionStyle): Flow {
  const connections = FLOWS[style].response === 'id' ? EVENTS.connections : 64
  return { ...EVENTS, style, connections }
}

export const FLOW_BENCHES: readonly Bench[] = [
  { ...flowBench('events', EVENTS, 2.5, 4), cpuMs: { reach: 0.5, aim: 0.3 } },
  {
    ...flowBench('http', flowOf('http'), 1, 1.5),
    cpuMs: { reach: 0.8, aim: 0.5 },
  },
  flowBench('hybrid', flowOf('hybrid'), 1, 1.5),
  {
    ...flowBench('hot', { ...EVENTS, accounts: 1 }, 4, 6),
    ours: 'orders settled, events, 256 connections, all of one account',
    reference: `${PGBENCH}, all on one hot row`,
  },
]

function flowBench(name: string, flow: Flow, reach: number, aim: number): Bench {
  const { style, connections } = flow
  return {
    name,
    reach,
    aim,
    ours: `orders settled, ${style}, ${connections} connections`,
    reference: PGBENCH,
    unit: 'orders/s',
    open: (stack, pace) => openFlow(stack, pace, name, flow),
  }
}

async function openFlow(stack: BenchStack, pace: Pace, name: string, flow: Flow): Promise<Contest> {
  const shop = await openShop(stack)
  const scriptFile = join(stack.folder, `${name}.pgbench.sql`)
  writeFileSync(scriptFile, pgbenchScript(await recordOrder(flow.style), flow.accounts))
  const { reference: url } = stack.urls
  return {
    async ours() {
      await stack.openBooks(flow.accounts)
      return shop.settle(flow, pace.seconds)
    },
    async reference() {
      await openBooks({ order: url, billing: url, notification: url }, flow.accounts)
      const run = { url, scriptFile, clients: PGBENCH_CLIENTS, seconds: pace.seconds }
      return { figure: (await runPgbench(run)).perSecond }
    },
    close: shop.close,
  }
}

export type Shop = Awaited<ReturnType<typeof openShop>>

/** All services, and customers who place the next order as soon as the last one got its response. */
export async function openShop(stack: BenchStack) {
  const { urls, pids } = await stack.serve(SERVICES)
  const shop = await openShopAt({
    url: urls.order,
    databases: stack.urls,
    roots: { ...pids, kafka: stack.kafka.pid, PostgreSQL: stack.postgres.pid },
  })
  return { urls, pids, ...shop }
}

export interface ShopPlace {
  /** Where customers place orders. */
  readonly url: string
  readonly databases: Urls
  /** Servers; their CPU time, including that of their descendants, is a cost of the orders. */
  readonly roots: Readonly<Record<string, number>>
}

/** Opens only the customers, for services that are already running. */
export async function openShopAt({ url, databases, roots }: ShopPlace) {
  const customers = await startMeasured<Load, LoadResult>('load.ts')

  /** Places orders for a number of seconds, or up to a number of orders. */
  async function order({ style, connections, accounts }: Flow, limit: Limit): Promise<LoadResult> {
    const ids = accountIds(accounts)
    const result = await customers.run({ url, style, connections, accounts: ids, ...limit })
    assert.deepEqual(result.rejected, {}, 'orders were rejected')
    return result
  }

  return {
    order,
    close: customers.close,

    /**
     * Places orders for `seconds`, then waits until the last of them has its notice, because an order that
     * was only accepted does not count. At the end, all orders must be in the books.
     */
    async settle(flow: Flow, seconds: number): Promise<Run> {
      const mark = await markBooks(databases)
      const before = usageOf(roots)
      const startedMs = performance.now()
      const { accepted, cpuMs } = await order(flow, { seconds })
      await settled(databases, mark, accepted, SETTLE_LIMIT_MS)
      const tookSeconds = (performance.now() - startedMs) / 1_000
      const costs = costsOf(before, usageOf(roots), accepted)
      await assertBooks(databases, mark, accepted)
      return { figure: accepted / tookSeconds, costs: { ...costs, load: cpuMs / accepted } }
    },
  }
}

type Limit = Pick<Load, 'seconds' | 'orders'>

/**
 * CPU milliseconds per order, of each server with its descendants and of all servers, without the load generator.
 */
function costsOf(
  before: Readonly<Record<string, Usage>>,
  after: Readonly<Record<string, Usage>>,
  orders: number,
): Costs {
  const each = Object.keys(before).map(
    (name) => [name, (after[name]!.cpuMs - before[name]!.cpuMs) / orders] as const,
  )
  return { all: each.reduce((sum, [, ms]) => sum + ms, 0), ...Object.fromEntries(each) }
}
