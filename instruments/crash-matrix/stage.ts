import type { InteractionStyle } from '../../contracts/style.ts'
import { type Deed, insist, type Wish } from '../simulation/world/customers.ts'
import { SERVICES, type ServiceName } from '../simulation/world/lives.ts'
import { START_MS } from '../simulation/world/scheduler.ts'
import type { World } from '../simulation/world/world.ts'

/** What a scenario acts with. */
export interface Stage {
  readonly world: World
  readonly style: InteractionStyle
  readonly deeds: Deed[]
  /** Wishes until it is granted or refused; returns the body of the answer. */
  wish(wish: Wish): Promise<unknown>
  /** The same request with the same Idempotency-Key once more. */
  wishAgain(kind: Wish['kind']): Promise<unknown>
  /** Takes all processes of a service away; they start again after so long. */
  takeAway(service: ServiceName, durationMs: number): Promise<void>
  wait(durationMs: number): Promise<void>
}

export function createStage(world: World, style: InteractionStyle): Stage {
  const { scheduler, chances } = world
  const deeds: Deed[] = []
  const asking = {
    ...{ http: world.customer, scheduler, style },
    ...{ chance: chances('customer'), known: [], patience: PATIENCE },
  }
  const isKeyed = ({ kind }: Wish) => ['open', 'deposit', 'order', 'pay'].includes(kind)
  return {
    ...{ world, style, deeds },
    wish(wish) {
      const key = isKeyed(wish) ? `key-${deeds.length}` : undefined
      const deed: Deed = { wish, style, attempts: [], ...(key !== undefined && { key }) }
      deeds.push(deed)
      return insist(asking, deed)
    },
    wishAgain: (kind) => insist(asking, deeds.findLast(({ wish }) => wish.kind === kind)!),
    takeAway: (service, durationMs) =>
      world.strike({
        ...{ name: `${service} away`, kind: 'service away', durationMs },
        afterMs: scheduler.now() - START_MS,
        draw: (SERVICES.indexOf(service) + 0.5) / SERVICES.length,
      }),
    wait: (durationMs) => new Promise((resolve) => scheduler.after(durationMs, resolve)),
  }
}

/** Longer than the lease of a dead process, which holds up its rows where it is not the only one. */
const PATIENCE = { tries: 60, answerMs: 3_500 }
const LOOK_MS = 200
const MAX_LOOKS = 300

/** A customer with an address for letters and, where any is given, money. */
export async function openAccount(at: Stage, depositMinor = 0): Promise<string> {
  const accountId = (await at.wish({ kind: 'open' })) as string
  await at.wish({ kind: 'contact', accountId })
  if (depositMinor === 0) return accountId
  await at.wish({ kind: 'deposit', accountId, amountMinor: depositMinor })
  await untilBalance(at, accountId, depositMinor)
  return accountId
}

/** In `events` an order might come before the money that was promised. */
async function untilBalance(at: Stage, accountId: string, minor: number): Promise<void> {
  await until(at, async () => {
    const view = (await at.wish({ kind: 'look at balance', accountId })) as { balance: number }
    return Math.round(view.balance * 100) === minor
  })
}

/** Orders; returns the order's id, however it was answered. */
export async function order(at: Stage, accountId: string, quantity: number): Promise<string> {
  const body = await at.wish({ kind: 'order', accountId, quantity })
  return typeof body === 'string' ? body : (body as { orderId: string }).orderId
}

export async function untilFinal(at: Stage, accountId: string, orderId: string): Promise<void> {
  await until(at, async () => {
    const view = (await at.wish({ kind: 'look at order', accountId, orderId })) as { state: string }
    return view.state !== 'PENDING'
  })
}

async function until(at: Stage, isSo: () => Promise<boolean>): Promise<void> {
  for (let looks = 1; !(await isSo()); looks += 1) {
    if (looks === MAX_LOOKS) throw new Error('what a customer waits for does not come')
    await at.wait(LOOK_MS)
  }
}
