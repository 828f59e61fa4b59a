import { makeTopics } from '../../tools/topics.ts'
import type { BenchStack } from './bench-stack.ts'
import { accountIds, openBooks } from './books.ts'
import type { Bench, Contest, Pace, Run } from './contest.ts'
import { EVENTS, openShop } from './flow.ts'
import { startMeasured } from './measured-process.ts'
import type { PacedLoad, PacedResult } from './paced-load.ts'
import { percentile } from './statistics.ts'
import type { WayTask } from './way-alone.ts'

/** Of what the services can take, so that an order hardly ever waits for another one. */
const SHARE_OF_SATURATION = 0.1
const TOPIC = 'bench-way'
/**
 * At this pace it takes more than a minute until the code is compiled, the broker's and that of the services, and
 * meanwhile what compiles it takes as much of the processors as the orders do.
 */
const WARM_UP_SECONDS = 90
const QUICK_WARM_UP_SECONDS = 40
/** A p99 of less is of a few orders, which a single collection of garbage has held up. */
const LEAST_SECONDS = 10

export const SETTLE: Bench = {
  name: 'settle',
  ours: 'p50 from POST to APPROVED, events, at a tenth of what can be settled',
  reference: 'the commits and the ways through the broker that lie between, one after the other',
  unit: 'ms',
  reach: 3,
  aim: 1.5,
  lessIsBetter: true,
  open: openSettle,
}

async function openSettle(stack: BenchStack, pace: Pace): Promise<Contest> {
  const shop = await openShop(stack)
  await openBooks(stack.urls, EVENTS.accounts)
  await shop.settle(EVENTS, pace.seconds)
  await openBooks(stack.urls, EVENTS.accounts)
  const { figure: saturation } = await shop.settle(EVENTS, pace.seconds)
  const perSecond = saturation * SHARE_OF_SATURATION
  const customers = await startMeasured<PacedLoad, PacedResult>('paced-load.ts')
  const way = await startMeasured<WayTask, number[]>('way-alone.ts')
  const { urls: services } = await stack.serve(['order', 'billing', 'notification'])
  await makeTopics(stack.brokers, [{ name: TOPIC, partitions: 1, compacted: false }])
  const { reference: databaseUrl } = stack.urls

  /** Orders for so many seconds; returns how long each took. */
  async function order(seconds: number): Promise<readonly number[]> {
    await openBooks(stack.urls, EVENTS.accounts)
    const accounts = accountIds(EVENTS.accounts)
    const to = { url: services.order, style: 'events', accounts } as const
    const { approvedMs, failed } = await customers.run({ ...to, perSecond, seconds, waits: true })
    if (failed > 0) throw new Error(`${failed} orders failed`)
    return approvedMs
  }

  const seconds = Math.max(pace.seconds, LEAST_SECONDS)
  await order(pace.quick ? QUICK_WARM_UP_SECONDS : WARM_UP_SECONDS)
  return {
    ours: async () => inPercentiles(await order(seconds)),
    async reference() {
      const books = { order: databaseUrl, billing: databaseUrl, notification: databaseUrl }
      await openBooks(books, EVENTS.accounts)
      const { brokers } = stack
      const { accounts } = EVENTS
      const task = { databaseUrl, brokers, topic: TOPIC, accounts, seconds }
      return inPercentiles(await way.run(task))
    },
    async close() {
      await Promise.all([customers.close(), way.close(), shop.close()])
    },
  }
}

function inPercentiles(latenciesMs: readonly number[]): Run {
  return { figure: percentile(latenciesMs, 0.5), also: { p99: percentile(latenciesMs, 0.99) } }
}
