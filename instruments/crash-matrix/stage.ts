import type { InteractionStyle } from '../../contracts/style.ts'
import { type Intent, type Operation, sendUntilFinal } from '../simulation/world/customers.ts'
import { SERVICES, type ServiceName } from '../simulation/world/lives.ts'
import { START_MS } from '../simulation/world/scheduler.ts'
import type { World } from '../simulation/world/world.ts'

/** What a scenario acts with. */
export interface Stage {
  readonly world: World
  readonly style: InteractionStyle
  readonly operations: Operation[]
  /** Wishes until it is granted or refused; returns the body of the answer. */
  perform(intent: Intent): Promise<unknown>
  /** The same request with the same Idempotency-Key once more. */
  repeat(kind: Intent['kind']): Promise<unknown>
  /** Takes all processes of a service away; they start again after so long. */
  takeAway(service: ServiceName, durationMs: number): Promise<void>
  wait(durationMs: number): Promise<void>
}

export function createStage(world: World, style: InteractionStyle): Stage {
  const { scheduler, chances } = world
  const operations: Operation[] = []
  const asking = {
    ...{ http: world.customer, scheduler, style },
    ...{ chance: chances('customer'), known: [], patience: PATIENCE },
  }
  const isKeyed = ({ kind }: Intent) => ['open', 'deposit', 'order', 'pay'].includes(kind)
  return {
    ...{ world, style, operations },
    perform(intent) {
      const key = isKeyed(intent) ? `key-${operations.length}` : undefined
      const operation: Operation = {
        intent,
        style,
        attempts: [],
        ...(key !== undefined && { key }),
      }
      operations.push(operation)
      return sendUntilFinal(asking, operation)
    },
    repeat: (kind) =>
      sendUntilFinal(asking, operations.findLast(({ intent }) => intent.kind === kind)!),
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
const POLL_MS = 200
const MAX_POLLS = 300

/** A customer with an address for letters and, where any is given, money. */
export async function openAccount(at: Stage, depositMinor = 0): Promise<string> {
  const accountId = (await at.perform({ kind: 'open' })) as string
  await at.perform({ kind: 'contact', accountId })
  if (depositMinor === 0) return accountId
  await at.perform({ kind: 'deposit', accountId, amountMinor: depositMinor })
  await untilBalance(at, accountId, depositMinor)
  return accountId
}

/** In `events` an order might come before the money that was promised. */
async function untilBalance(at: Stage, accountId: string, minor: number): Promise<void> {
  await until(at, async () => {
    const view = (await at.perform({ kind: 'read balance', accountId })) as { balance: number }
    return Math.round(view.balance * 100) === minor
  })
}

/** Orders; returns the order's id, however it was answered. */
export async function order(at: Stage, accountId: string, quantity: number): Promise<string> {
  const body = await at.perform({ kind: 'order', accountId, quantity })
  return typeof body === 'string' ? body : (body as { orderId: string }).orderId
}

export async function untilFinal(at: Stage, accountId: string, orderId: string): Promise<void> {
  await until(at, async () => {
    const view = (await at.perform({ kind: 'read order', accountId, orderId })) as { state: string }
    return view.state !== 'PENDING'
  })
}

async function until(at: Stage, condition: () => Promise<boolean>): Promise<void> {
  for (let looks = 1; !(await condition()); looks += 1) {
    if (looks === MAX_POLLS) throw new Error('what a customer waits for does not come')
    await at.wait(POLL_MS)
  }
}
