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
import { decide, type Order, type OrderCommand, type OrderState, responseFor } from './order.ts'
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
 * What order does in one transaction: it places orders and applies commands to orders. The change of
 * state, the messages that it causes (outbox) and the response under an Idempotency-Key are written
 * together.
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
  /** The request that waits for the outcome, if the style responds with the outcome. */
  readonly waiting?: Waiting
}

interface Waiting {
  remainingMs(): number
}

/** The placed order; for a repeated Idempotency-Key, the stored response or the reason to reject it. */
export type Placed = { readonly kind: 'placed'; readonly order: Order } | RepeatResult

export interface AddressedCommand {
  readonly orderId: string
  /** If present, the command applies only to an order of this profile. */
  readonly profileId?: string
  readonly command: OrderCommand
  readonly trace?: TraceContext
}

/** The order after a command and its state before it, or why the command was not applied. */
export type Applied = (StoredOrder & { readonly from: OrderState }) | 'unknown' | 'not theirs'

/** Placements and commands that share a transaction and its statements. */
export interface OrderBatch {
  readonly placements: readonly Placement[]
  readonly commands: readonly AddressedCommand[]
}

/** The result of each placement and each command of a batch, in the batch's order. */
export interface OrderBatchResult {
  readonly placed: readonly Placed[]
  readonly applied: readonly Applied[]
}

export async function applyBatch(
  tx: Queryable,
  at: CommandContext,
  { placements, commands }: OrderBatch,
): Promise<OrderBatchResult> {
  const [known, orders] = await Promise.all([
    at.idempotency.find(
      tx,
      placements.flatMap(({ keyed }) => (keyed ? keysOf(keyed) : [])),
    ),
    lockOrders(tx, [...new Set(commands.map(({ orderId }) => orderId))]),
  ])
  const placing = place(placements, known, at)
  const changing = applyAll(commands, orders, at)
  const { now } = at
  const times = { now, resendAt: now + at.resendAfterMs, deadline: now + at.deadlineMs }
  const written = Promise.all([
    insertOrders(tx, placing.orders, times),
    changeOrders(tx, changing.changes, now),
    watchVoids(tx, changing.voids, times.resendAt),
    confirmVoids(tx, changing.confirmed),
    at.outbox.enqueue(tx, [...placing.messages, ...changing.messages]),
    at.idempotency.remember(tx, placing.responses),
    at.idempotency.complete(tx, changing.responses),
  ])
  // If a message named an order of another profile, its dead letter is written in this transaction after
  // these statements, so the commit cannot be pipelined with them.
  if (!changing.applied.includes('not theirs')) tx.last?.()
  await written
  return { placed: placing.placed, applied: changing.applied }
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
    if (keyed) known.set(keyed.key, { ...keyed, response: firstResponse(order) })
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
    responses: fresh.flatMap(({ keyed, order }) =>
      keyed ? [{ ...keyed, response: firstResponse(order) }] : [],
    ),
  }
}

/** The response stored under a key when its order is placed; null if the style responds with the outcome. */
function firstResponse(order: Order): StoredResponse | null {
  const respondsAtOnce = flowOf(order.style).response === 'id'
  return respondsAtOnce ? { status: 201, body: JSON.stringify(order.id) } : null
}

/** Decides the commands one after the other, because several may address the same order. */
function applyAll(
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
    const changed =
      state === order.state ? order : { ...order, state, reason, updated: new Date(now) }
    orders.set(orderId, changed)
    for (const effect of effects) messages.push(route(effect, changed, reason, now, trace))
    if (effects.includes('voidPayment')) voids.set(orderId, trace ?? {})
    else if (order.state === 'CANCELED' && confirmsNoMoneyHeld(command)) confirmed.add(orderId)
    return { ...changed, from: order.state }
  })
  const changedOrders = [...orders.values()].filter(
    (order) => order.state !== origins.get(order.id)?.state,
  )
  return {
    applied,
    messages,
    changes: changedOrders.map(({ id, state, reason }): OrderChange => ({ id, to: state, reason })),
    voids: [...voids].map(([orderId, trace]) => ({ orderId, trace })),
    confirmed: [...confirmed],
    responses: responsesOf(changedOrders, origins),
  }
}

/** Whether the command reports that billing refused, voided or refunded the payment, each of which is final. */
function confirmsNoMoneyHeld({ type }: OrderCommand): boolean {
  return type === 'refuse' || type === 'acknowledgeRefund' || type === 'confirmVoid'
}

/** The responses for the Idempotency-Keys of the orders that this batch settled. */
function responsesOf(
  changedOrders: readonly StoredOrder[],
  origins: ReadonlyMap<string, StoredOrder>,
): (StoredResponse & { key: string })[] {
  return changedOrders.flatMap((order) =>
    order.idempotencyKey !== null && origins.get(order.id)?.state === 'PENDING'
      ? [{ key: order.idempotencyKey, ...outcomeResponse(order) }]
      : [],
  )
}

/** The response that reports the outcome of a settled order to its customer. */
export function outcomeResponse(order: Order): StoredResponse {
  const response = responseFor(order.reason)
  if (response.accepted) return { status: 201, body: JSON.stringify(order.id) }
  const details = { orderId: order.id, ...(order.reason && { reason: order.reason }) }
  return problemResponse(response.code, details)
}
