import type { InteractionStyle } from '../../contracts/style.ts'
import { type Intent, type Operation, sendUntilFinal } from '../simulation/world/customers.ts'
import { SERVICES, type ServiceName } from '../simulation/world/lives.ts'
import { START_MS } from '../simulation/world/scheduler.ts'
import type { World } from '../simulation/world/world.ts'

/** The actions of a scenario: sending a customer's requests, stopping services and waiting. */
export interface Stage {
  readonly world: World
  readonly style: InteractionStyle
  readonly operations: Operation[]
  /** Sends a customer's request until it gets a final response; returns the response's body. */
  perform(intent: Intent): Promise<unknown>
  /** Sends the last request of this kind once more, with the same Idempotency-Key. */
  repeat(kind: Intent['kind']): Promise<unknown>
  /** Stops all processes of a service for this time. */
  stopService(service: ServiceName, durationMs: number): Promise<void>
  wait(durationMs: number): Promise<void>
}

export function createStage(world: World, style: InteractionStyle): Stage {
  const { scheduler, chances } = world
  const operations: Operation[] = []
  const context = {
    http: world.customer,
    scheduler,
    style,
    chance: chances('customer'),
    known: [],
    patience: PATIENCE,
  }
  const isKeyed = ({ kind }: Intent) => ['open', 'deposit', 'order', 'pay'].includes(kind)
  return {
    world,
    style,
    operations,
    perform(intent) {
      const key = isKeyed(intent) ? `key-${operations.length}` : undefined
      const operation: Operation = {
        intent,
        style,
        attempts: [],
        ...(key !== undefined && { key }),
      }
      operations.push(operation)
      return sendUntilFinal(context, operation)
    },
    repeat: (kind) =>
      sendUntilFinal(context, operations.findLast(({ intent }) => intent.kind === kind)!),
    stopService: (service, durationMs) =>
      world.strike({
        name: `${service} down`,
        kind: 'service down',
        durationMs,
        afterMs: scheduler.now() - START_MS,
        draw: (SERVICES.indexOf(service) + 0.5) / SERVICES.length,
      }),
    wait: (durationMs) => new Promise((resolve) => scheduler.after(durationMs, resolve)),
  }
}

/**
 * All attempts together take longer than the leases of a dead process last: until then, the rows of its lanes
 * wait.
 */
const PATIENCE = { attempts: 60, timeoutMs: 3_500 }
const POLL_MS = 200
const MAX_POLLS = 300

/** Opens an account with a contact for letters and, if given, a deposit; returns its id. */
export async function openAccount(at: Stage, depositMinor = 0): Promise<string> {
  const accountId = (await at.perform({ kind: 'open' })) as string
  await at.perform({ kind: 'contact', accountId })
  if (depositMinor === 0) return accountId
  await at.perform({ kind: 'deposit', accountId, amountMinor: depositMinor })
  await untilBalance(at, accountId, depositMinor)
  return accountId
}

/** In `events`, an order that is placed before the deposit is booked could overtake the deposit. */
async function untilBalance(at: Stage, accountId: string, minor: number): Promise<void> {
  await until(at, async () => {
    const view = (await at.perform({ kind: 'read balance', accountId })) as { balance: number }
    return Math.round(view.balance * 100) === minor
  })
}

/** Places an order; returns its id, whatever its outcome. */
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
  for (let polls = 1; !(await condition()); polls += 1) {
    if (polls === MAX_POLLS) throw new Error('the customer waited too long')
    await at.wait(POLL_MS)
  }
}
