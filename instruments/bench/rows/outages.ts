import type { BenchStack } from '../bench-stack.ts'
import { assertBooks, markBooks, settled, settledUntil } from '../books.ts'
import type { Bench, Contest, Pace, Run } from '../contest.ts'
import { quietCosts, quietSpan } from '../quiet-seconds.ts'
import { percentile } from '../statistics.ts'
import { EVENTS, openShop, SETTLE_LIMIT_MS } from './flow.ts'
import { openSteady } from './steady.ts'

/** What a broker that was away leaves behind: work that waits, and whether customers still feel it. */
export const OUTAGE_BENCHES: readonly Bench[] = [
  {
    name: 'backlog',
    ours: 'orders settled, events, that were accepted while the broker was away',
    reference: 'orders settled in steady flow, events',
    unit: 'orders/s',
    reach: 1,
    aim: 2,
    isLong: true,
    isWarm: true,
    open: openBacklog,
  },
  {
    name: 'recovery',
    ours: 'p99 from POST to APPROVED in a minute after an outage of the broker, when the new one is as warm as the old',
    reference: 'the same in the minute before it',
    unit: 'ms',
    reach: 1.2,
    aim: 1.05,
    lessIsBetter: true,
    isLong: true,
    isWarm: true,
    open: openRecovery,
  },
]

const BACKLOG_ORDERS = 100_000
const QUICK_BACKLOG_ORDERS = 20_000
const ACCEPT_LIMIT_SECONDS = 180
const BACKLOG_LIMIT_MS = 300_000
const MINUTE = { seconds: 60, outageSeconds: 180 }
const QUICK_MINUTE = { seconds: 10, outageSeconds: 15 }
/**
 * The broker that comes back is as cold as the first one was: what compiles its code takes from everybody for
 * about two minutes. So each of the two minutes begins when its broker has run for so long; the one before the
 * outage is of a broker that was started anew for it.
 */
const WARM_UP_SECONDS = 90
const QUICK_WARM_UP_SECONDS = 10

async function openBacklog(stack: BenchStack, pace: Pace): Promise<Contest> {
  const shop = await openShop(stack)
  const orders = pace.quick ? QUICK_BACKLOG_ORDERS : BACKLOG_ORDERS
  await stack.openBooks(EVENTS.accounts)
  await shop.settle(EVENTS, pace.seconds)
  return {
    async ours() {
      await stack.openBooks(EVENTS.accounts)
      const mark = await markBooks(stack.urls)
      await stack.kafka.kill()
      const { accepted } = await shop.order(EVENTS, { seconds: ACCEPT_LIMIT_SECONDS, orders })
      await stack.kafka.start()
      const begunMs = performance.now()
      await settled(stack.urls, mark, accepted, BACKLOG_LIMIT_MS)
      const tookMs = performance.now() - begunMs
      await assertBooks(stack.urls, mark, accepted)
      return { figure: (accepted * 1_000) / tookMs }
    },
    async reference() {
      await stack.openBooks(EVENTS.accounts)
      return { figure: (await shop.settle(EVENTS, pace.seconds)).figure }
    },
    close: shop.close,
  }
}

async function openRecovery(stack: BenchStack, pace: Pace): Promise<Contest> {
  const steady = await openSteady(stack, pace)
  const { seconds, outageSeconds } = pace.quick ? QUICK_MINUTE : MINUTE
  const warmUpSeconds = pace.quick ? QUICK_WARM_UP_SECONDS : WARM_UP_SECONDS
  const minute = { ...quietSpan(seconds, pace), waits: true }

  let before: Run
  return {
    async ours() {
      await stack.openBooks(EVENTS.accounts)
      await stack.kafka.kill()
      await stack.kafka.start()
      await steady.come({ seconds: warmUpSeconds, waits: true })
      const old = (await steady.come(minute)).approved
      before = { figure: p99(old.tookMs) }
      await stack.kafka.kill()
      await steady.come({ seconds: outageSeconds, waits: false })
      await stack.kafka.start()
      const back = new Date()
      // Customers come meanwhile as before, and do not wait for their outcomes.
      const meanwhile = steady.come({ seconds, waits: false })
      await settledUntil(stack.urls, back, SETTLE_LIMIT_MS)
      const caughtUpSeconds = (Date.now() - back.getTime()) / 1_000
      const { answeredMs } = await meanwhile
      await steady.come({ seconds: warmUpSeconds - seconds, waits: false })
      const anew = (await steady.come(minute)).approved
      return {
        figure: p99(anew.tookMs),
        costs: {
          'seconds until caught up': caughtUpSeconds,
          'milliseconds until answered meanwhile, p99': p99(answeredMs),
          'milliseconds of p50 before': percentile(old.tookMs, 0.5),
          'milliseconds of p50 after': percentile(anew.tookMs, 0.5),
          ...quietCosts(old, ' before'),
          ...quietCosts(anew, ' after'),
        },
      }
    },
    reference: async () => before,
    close: steady.close,
  }
}

const p99 = (values: readonly number[]) => percentile(values, 0.99)
