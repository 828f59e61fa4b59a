import type { BenchStack } from '../bench-stack.ts'
import { assertBooks, markBooks, settled, settledUntil } from '../books.ts'
import type { Bench, Contest, Pace, Run } from '../contest.ts'
import { quietCosts, quietSpan } from '../quiet-seconds.ts'
import { percentile } from '../statistics.ts'
import { EVENTS, openShop, SETTLE_LIMIT_MS } from './flow.ts'
import { openSteady } from './steady.ts'

/**
 * The effects of an outage of the broker: how fast the backlog is settled, and whether customers are still
 * slowed down later.
 */
export const OUTAGE_BENCHES: readonly Bench[] = [
  {
    name: 'backlog',
    ours: 'orders settled, events, that were accepted while the broker was down',
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
    ours: 'p99 from POST to APPROVED in a minute after an outage of the broker, once the new broker is as warm as the old one was',
    reference: 'the same in a minute before the outage',
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
 * For about two minutes after a restart, the broker compiles its code and takes CPU time from all other
 * processes. So each of the two measured minutes begins when the broker has run for this long. For the minute
 * before the outage, the broker is restarted too.
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
      const startedMs = performance.now()
      await settled(stack.urls, mark, accepted, BACKLOG_LIMIT_MS)
      const tookMs = performance.now() - startedMs
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
      await steady.run({ seconds: warmUpSeconds, waits: true })
      const beforeOutage = (await steady.run(minute)).approved
      before = { figure: p99(beforeOutage.tookMs) }
      await stack.kafka.kill()
      await steady.run({ seconds: outageSeconds, waits: false })
      await stack.kafka.start()
      const back = new Date()
      // While the backlog is settled, customers arrive at the same rate, without waiting for their outcomes.
      const duringCatchUp = steady.run({ seconds, waits: false })
      await settledUntil(stack.urls, back, SETTLE_LIMIT_MS)
      const caughtUpSeconds = (Date.now() - back.getTime()) / 1_000
      const { acceptedMs } = await duringCatchUp
      await steady.run({ seconds: warmUpSeconds - seconds, waits: false })
      const afterOutage = (await steady.run(minute)).approved
      return {
        figure: p99(afterOutage.tookMs),
        costs: {
          'seconds until caught up': caughtUpSeconds,
          'milliseconds until accepted while catching up, p99': p99(acceptedMs),
          'milliseconds of p50 before': percentile(beforeOutage.tookMs, 0.5),
          'milliseconds of p50 after': percentile(afterOutage.tookMs, 0.5),
          ...quietCosts(beforeOutage, ' before'),
          ...quietCosts(afterOutage, ' after'),
        },
      }
    },
    reference: async () => before,
    close: steady.close,
  }
}

const p99 = (values: readonly number[]) => percentile(values, 0.99)
