import { setTimeout as sleep } from 'node:timers/promises'
import type { InteractionStyle } from '../../../contracts/style.ts'
import { runTasks } from '../measured-process.ts'
import { openSpan, type Quietest, type Span, type Timed } from '../quiet-seconds.ts'
import { openConnections } from './connections.ts'

/**
 * Customers who arrive at a steady rate, whether or not earlier customers have been served, place an order
 * and wait for its outcome. Runs in a separate process.
 */
export interface PacedLoad extends Span {
  readonly url: string
  readonly style: InteractionStyle
  readonly perSecond: number
  readonly accounts: readonly string[]
  /** Whether customers wait for the outcome; false if no outcome can arrive, such as during an outage. */
  readonly waits: boolean
}

export interface PacedResult {
  /** Milliseconds from each request until its 201. */
  readonly acceptedMs: readonly number[]
  /** From the request until the customer sees APPROVED, in the seconds that count. */
  readonly approved: Quietest
  readonly failed: number
}

const WAIT_SECONDS = 15
const MAX_POLLS = 40

export async function applyPacedLoad(load: PacedLoad): Promise<PacedResult> {
  const connections = openConnections(load.url)
  const acceptedMs: number[] = []
  const approved: Timed[] = []
  let failed = 0
  const customers: Promise<void>[] = []

  async function order(account: string): Promise<void> {
    const startedMs = performance.now()
    const query = `profileId=${account}`
    const placed = await connections.send(
      `POST /orders?${query}`,
      ['content-type: application/json', `x-interaction-style: ${load.style}`],
      '{"productQuantity":1}',
    )
    if (placed.status !== 201) throw new Error(`an order got status ${placed.status}`)
    const id = JSON.parse(placed.body) as string
    acceptedMs.push(performance.now() - startedMs)
    for (let polls = 0; load.waits && polls < MAX_POLLS; polls += 1) {
      const polled = await connections.send(`GET /orders/${id}?${query}`, [
        `prefer: wait=${WAIT_SECONDS}`,
      ])
      const { state } = JSON.parse(polled.body) as { state: string }
      if (state === 'APPROVED') {
        approved.push({ startedMs, tookMs: performance.now() - startedMs })
        return
      }
    }
    if (load.waits) throw new Error('an order was not approved')
  }

  const startedMs = performance.now()
  const span = openSpan(load)
  for (let sent = 0; !span.isOver(); sent += 1) {
    const dueMs = (sent * 1_000) / load.perSecond
    const earlyMs = startedMs + dueMs - performance.now()
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
  return { acceptedMs, approved: span.quietest(approved), failed }
}

runTasks(applyPacedLoad)
