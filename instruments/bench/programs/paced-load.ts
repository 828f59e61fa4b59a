import { setTimeout as sleep } from 'node:timers/promises'
import type { InteractionStyle } from '../../../contracts/style.ts'
import { answerTasks } from '../measured-process.ts'
import { openSpan, type Quietest, type Span, type Timed } from '../quiet-seconds.ts'
import { openConnections } from './connections.ts'

/**
 * Customers who come at a steady rate, whether those before them are served or not, order
 * and wait for the outcome of their order. A process of its own.
 */
export interface PacedLoad extends Span {
  readonly url: string
  readonly style: InteractionStyle
  readonly perSecond: number
  readonly accounts: readonly string[]
  /** Whether they wait for the outcome; while it cannot come they need not. */
  readonly waits: boolean
}

export interface PacedResult {
  /** From the request until 201, of all. */
  readonly answeredMs: readonly number[]
  /** From the request until the customer knows that it is APPROVED, in the seconds that count. */
  readonly approved: Quietest
  readonly failed: number
}

const WAIT_SECONDS = 15
const MOST_LOOKS = 40

export async function applyPacedLoad(load: PacedLoad): Promise<PacedResult> {
  const connections = openConnections(load.url)
  const answeredMs: number[] = []
  const approved: Timed[] = []
  let failed = 0
  const customers: Promise<void>[] = []

  async function order(account: string): Promise<void> {
    const begunMs = performance.now()
    const query = `profileId=${account}`
    const placed = await connections.ask(
      `POST /orders?${query}`,
      ['content-type: application/json', `x-interaction-style: ${load.style}`],
      '{"productQuantity":1}',
    )
    if (placed.status !== 201) throw new Error(`an order was answered ${placed.status}`)
    const id = JSON.parse(placed.body) as string
    answeredMs.push(performance.now() - begunMs)
    for (let looks = 0; load.waits && looks < MOST_LOOKS; looks += 1) {
      const seen = await connections.ask(`GET /orders/${id}?${query}`, [
        `prefer: wait=${WAIT_SECONDS}`,
      ])
      const { state } = JSON.parse(seen.body) as { state: string }
      if (state === 'APPROVED') {
        approved.push({ begunMs, tookMs: performance.now() - begunMs })
        return
      }
    }
    if (load.waits) throw new Error('an order is not approved')
  }

  const begunMs = performance.now()
  const span = openSpan(load)
  for (let sent = 0; !span.isOver(); sent += 1) {
    const dueMs = (sent * 1_000) / load.perSecond
    const earlyMs = begunMs + dueMs - performance.now()
    if (earlyMs > 1) await sleep(earlyMs)
    const account = load.accounts[sent % load.accounts.length]!
    customers.push(
      order(account).catch(() => {
        failed += 1
      }),
    )
  }
  await Promise.all(customers)
  connections.close()
  return { answeredMs, approved: span.quietest(approved), failed }
}

answerTasks(applyPacedLoad)
