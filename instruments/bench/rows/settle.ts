import { createTopics } from '../../../apps/topics/main.ts'
import type { BenchStack } from '../bench-stack.ts'
import { openBooks } from '../books.ts'
import type { Bench, Contest, Pace, Run } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import type { PathTask } from '../programs/bare-path.ts'
import { type Quietest, quietCosts, quietSpan } from '../quiet-seconds.ts'
import { percentile } from '../statistics.ts'
import { EVENTS } from './flow.ts'
import { openSteady } from './steady.ts'

const TOPIC = 'bench-path'
/**
 * At this rate it takes more than a minute until the code of the broker and the services is compiled; until
 * then, compiling takes as much CPU time as the orders.
 */
const WARM_UP_SECONDS = 90
const QUICK_WARM_UP_SECONDS = 40
/** In a shorter run, the p99 depends on a few orders, which a single garbage collection can delay. */
const MIN_SECONDS = 10

export const SETTLE: Bench = {
  name: 'settle',
  ours: 'p50 from POST to APPROVED, events, at a tenth of the highest rate',
  reference:
    'the commits and the passes through the broker that an order waits for, one after the other',
  unit: 'ms',
  reach: 3,
  aim: 1.5,
  lessIsBetter: true,
  open: openSettle,
}

async function openSettle(stack: BenchStack, pace: Pace): Promise<Contest> {
  const steady = await openSteady(stack, pace)
  const path = await startMeasured<PathTask, Quietest>('bare-path.ts')
  await createTopics(stack.brokers, [{ name: TOPIC, partitions: 1, compacted: false }])
  const { brokers } = stack
  const { reference: databaseUrl } = stack.urls
  const { accounts } = EVENTS
  const span = quietSpan(Math.max(pace.seconds, MIN_SECONDS), pace)
  await stack.openBooks(accounts)
  await steady.run({ seconds: pace.quick ? QUICK_WARM_UP_SECONDS : WARM_UP_SECONDS, waits: true })
  return {
    async ours() {
      await stack.openBooks(accounts)
      const { approved } = await steady.run({ ...span, waits: true })
      return inPercentiles(approved)
    },
    async reference() {
      const books = { order: databaseUrl, billing: databaseUrl, notification: databaseUrl }
      await openBooks(books, accounts)
      return inPercentiles(
        await path.run({ databaseUrl, brokers, topic: TOPIC, accounts, ...span }),
      )
    },
    async close() {
      await Promise.all([steady.close(), path.close()])
    },
  }
}

function inPercentiles(quietest: Quietest): Run {
  const { tookMs } = quietest
  return {
    figure: percentile(tookMs, 0.5),
    also: { p99: percentile(tookMs, 0.99) },
    costs: quietCosts(quietest),
  }
}
