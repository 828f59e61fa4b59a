import { SERVICES } from '../../../tools/stack/options.ts'
import type { BenchStack } from '../bench-stack.ts'
import { assertBooks, markBooks, settled } from '../books.ts'
import type { Bench, Contest } from '../contest.ts'
import { EVENTS, openShop, SETTLE_LIMIT_MS } from './flow.ts'

/**
 * Shows that after the only process of the billing service was killed, customers wait only for its restart,
 * not for a time-out.
 */
export const RESTART: Bench = {
  name: 'restart',
  ours: 'seconds from when a killed billing service is ready again until 1,000 orders in flight are settled, events',
  reference: 'one second',
  unit: 's',
  reach: 3,
  aim: 1,
  lessIsBetter: true,
  isLong: true,
  open: openRestart,
}

const ORDERS = 1_000
const ACCEPT_LIMIT_SECONDS = 60

async function openRestart(stack: BenchStack): Promise<Contest> {
  const shop = await openShop(stack)
  return {
    async ours() {
      await stack.openBooks(EVENTS.accounts)
      const mark = await markBooks(stack.urls)
      const ordering = shop.order(EVENTS, { seconds: ACCEPT_LIMIT_SECONDS, orders: ORDERS })
      await stack.kill('billing')
      const { readyMs } = await stack.serve(SERVICES)
      const startedMs = performance.now()
      const { accepted } = await ordering
      await settled(stack.urls, mark, accepted, SETTLE_LIMIT_MS)
      const figure = (performance.now() - startedMs) / 1_000
      await assertBooks(stack.urls, mark, accepted)
      return { figure, costs: { 'milliseconds until ready': readyMs.billing! } }
    },
    reference: async () => ({ figure: 1 }),
    close: shop.close,
  }
}
