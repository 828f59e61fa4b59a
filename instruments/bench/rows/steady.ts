import type { BenchStack } from '../bench-stack.ts'
import { accountIds } from '../books.ts'
import type { Pace } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import type { PacedLoad, PacedResult } from '../programs/paced-load.ts'
import { EVENTS, openShop } from './flow.ts'

/** The share of the highest rate at which customers arrive, so low that an order hardly ever waits for another. */
const SHARE_OF_SATURATION = 0.1

/** Customers in `events` who arrive one by one at services that are warmed up. */
export async function openSteady(stack: BenchStack, pace: Pace) {
  const shop = await openShop(stack)
  await stack.openBooks(EVENTS.accounts)
  await shop.settle(EVENTS, pace.seconds)
  await stack.openBooks(EVENTS.accounts)
  const { figure: saturation } = await shop.settle(EVENTS, pace.seconds)
  await shop.close()
  const customers = await startMeasured<PacedLoad, PacedResult>('paced-load.ts')
  const perSecond = saturation * SHARE_OF_SATURATION
  const target = {
    url: shop.urls.order,
    style: 'events',
    accounts: accountIds(EVENTS.accounts),
  } as const
  return {
    async run(how: Pick<PacedLoad, 'seconds' | 'maxSeconds' | 'waits'>): Promise<PacedResult> {
      const result = await customers.run({ ...target, perSecond, ...how })
      if (result.failed > 0) throw new Error(`${result.failed} orders failed`)
      return result
    },
    close: customers.close,
  }
}
