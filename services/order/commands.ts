import {
  type Idempotency,
  type KeyedRequest,
  keysOf,
  lookUp,
  problemResponse,
  type RepeatResult,
  repeatResult,
  type StoredResponse,
} from '../../chassis/idempotency.ts'
import { flowOf } from '../../contracts/style.ts'
import type { TraceContext } from '../../contracts/trace-context.ts'
import type { Outbox, OutboxMessage } from '../../messaging/outbox/outbox.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { answerOf, decide, type Order, type OrderCommand, type OrderState } from './order.ts'
import { route } from './routing.ts'
import {
  changeOrders,
  confirmVoids,
  insertOrders,
  lockOrders,
  type OrderChange,
  type StoredOrder,
  watchVoids,
} from './store.ts'

/**
 * What order does in one transaction: orders are placed, and commands move orders on. The state change,
 * what it asks of others (outbox) and the answer to an Idempotency-Key are written together.
 */
export interface CommandContext {
  readonly outbox: Outbox
  readonly idempotency: Idempotency
  /** By the database's clock, in epoch milliseconds. */
  readonly now: number
  readonly resendAfterMs: number
  readonly deadlineMs: number
}

export interface Placement {
  readonly order: Order
  readonly keyed: KeyedRequest | undefined
  readonly trace: TraceContext
  /** The request that waits for the outcome, where the style has one. */
  readonly waiting?: Waiting
}

interface Waiting {
  remainingMs(): number
}

/** Placed, or what an earlier request with the same key was answered (or why it is refused). */
export type Placed = { readonly kind: 'placed'; readonly order: Order } | RepeatResult

export interface AddressedCommand {
  readonly orderId: string
  /** Whose order it must be, where the sender says so. */
  readonly profileId?: string
  readonly command: OrderCommand
  readonly trace?: TraceContext
}

/** The order as a command left it and the state that it came from, or why it was not for it. */
export type Applied = (StoredOrder & { readonly from: OrderState }) | 'unknown' | 'not theirs'

/** A batch, whose parts share their statements. */
export interface Work {
  readonly placements: readonly Placement[]
  readonly commands: readonly AddressedCommand[]
}

/** What became of each, in the same order. */
export interface Done {
  readonly placed: readonly Placed[]
  readonly applied: readonly Applied[]
}

export async function workOff(
  tx: Queryable,
  at: CommandContext,
  { placements, commands }: Work,
): Promise<Done> {
  const [known, orders] = await Promise.all([
    at.idempotency.find(
      tx,
      placements.flatMap(({ keyed }) => (keyed ? keysOf(keyed) : [])),
    ),
    lockOrders(tx, [...new Set(commands.map(({ orderId }) => orderId))]),
  ])
  const placing = place(placements, known, at)
  const moving = move(commands, orders, at)
  const { now } = at
  const times = { now, resendAt: now + at.resendAfterMs, deadline: now + at.deadlineMs }
  const written = Promise.all([
    insertOrders(tx, placing.orders, times),
    changeOrders(tx, moving.changes, now),
    watchVoids(tx, moving.voids, times.resendAt),
    confirmVoids(tx, moving.confirmed),
    at.outbox.enqueue(tx, [...placing.messages, ...moving.messages]),
    at.idempotency.remember(tx, placing.answers),
    at.idempotency.complete(tx, moving.answers),
  ])
  // A message about somebody else's order is set aside in the same transaction.
  if (!moving.applied.includes('not theirs')) tx.last?.()
  await written
  return { placed: placing.placed, applied: moving.applied }
}

type Known = Awaited<ReturnType<Idempotency['find']>>

function place(
  placements: readonly Placement[],
  known: Known,
  { now, deadlineMs }: CommandContext,
) {
  const fresh: Placement[] = []
  const placed = placements.map((placement): Placed => {
    const found = placement.keyed && lookUp(known, placement.keyed)
    if (placement.keyed && found?.stored) return repeatResult(placement.keyed, found.stored)
    const keyed = found?.keyed
    const order = { ...placement.order, idempotencyKey: keyed?.key ?? null }
    if (keyed) known.set(keyed.key, { ...keyed, response: firstAnswer(order) })
    fresh.push({ ...placement, order, keyed })
    return { kind: 'placed', order }
  })
  return {
    placed,
    orders: fresh.map(({ order, trace }) => ({ ...order, ...trace })),
    messages: fresh.map(({ order, trace, waiting }) => ({
      ...route('requestPayment', order, null, now, trace, now + deadlineMs),
      ...(waiting && { waiting }),
    })),
    answers: fresh.flatMap(({ keyed, order }) =>
      keyed ? [{ ...keyed, response: firstAnswer(order) }] : [],
    ),
  }
}

/** The response stored under a key when its order is placed; null if it has to wait for the outcome. */
function firstAnswer(order: Order): StoredResponse | null {
  const respondsAtOnce = flowOf(order.style).response === 'id'
  return respondsAtOnce ? { status: 201, body: JSON.stringify(order.id) } : null
}

/** Decides one command after the other; several may be about one order. */
function move(
  commands: readonly AddressedCommand[],
  orders: Map<string, StoredOrder>,
  { now }: CommandContext,
) {
  const origins = new Map(orders)
  const messages: OutboxMessage[] = []
  const voids = new Map<string, TraceContext>()
  const confirmed = new Set<string>()
  const applied = commands.map(({ orderId, profileId, command, trace }): Applied => {
    const order = orders.get(orderId)
    if (order === undefined) return 'unknown'
    if (profileId !== undefined && profileId !== order.profileId) return 'not theirs'
    const { state, reason, effects } = decide(order, command)
    const moved =
      state === order.state ? order : { ...order, state, reason, updated: new Date(now) }
    orders.set(orderId, moved)
    for (const effect of effects) messages.push(route(effect, moved, reason, now, trace))
    if (effects.includes('voidPayment')) voids.set(orderId, trace ?? {})
    else if (order.state === 'CANCELED' && saysNothingIsHeld(command)) confirmed.add(orderId)
    return { ...moved, from: order.state }
  })
  const changed = [...orders.values()].filter(
    (order) => order.state !== origins.get(order.id)?.state,
  )
  return {
    applied,
    messages,
    changes: changed.map(({ id, state, reason }): OrderChange => ({ id, to: state, reason })),
    voids: [...voids].map(([orderId, trace]) => ({ orderId, trace })),
    confirmed: [...confirmed],
    answers: openAnswers(changed, origins),
  }
}

/** Whether billing says that it refused, voided or refunded the order's payment: all of them final. */
function saysNothingIsHeld({ type }: OrderCommand): boolean {
  return type === 'refuse' || type === 'acknowledgeRefund' || type === 'confirmVoid'
}

/** The answers that a settled outcome gives to the keys that waited for it. */
function openAnswers(
  changed: readonly StoredOrder[],
  origins: ReadonlyMap<string, StoredOrder>,
): (StoredResponse & { key: string })[] {
  return changed.flatMap((order) =>
    order.idempotencyKey !== null && origins.get(order.id)?.state === 'PENDING'
      ? [{ key: order.idempotencyKey, ...outcomeAnswer(order) }]
      : [],
  )
}

/** The response that reports the outcome of a settled order to its customer. */
export function outcomeAnswer(order: Order): StoredResponse {
  const answer = answerOf(order.reason)
  if (answer.accepted) return { status: 201, body: JSON.stringify(order.id) }
  const details = { orderId: order.id, ...(order.reason && { reason: order.reason }) }
  return problemResponse(answer.code, details)
}
