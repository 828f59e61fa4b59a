import {
  type Idempotency,
  type KeyedRequest,
  keysOf,
  lookUp,
  problemResponse,
  type RepeatResult,
  repeatResult,
  type StoredRequest,
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

/** Places a new order. */
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

/** A command for an order that was placed before. */
export interface AddressedCommand {
  readonly orderId: string
  /** If present, the command applies only to an order of this profile. */
  readonly profileId?: string
  readonly command: OrderCommand
  readonly trace?: TraceContext
}

export type Applied =
  | { readonly kind: 'placed'; readonly order: Order }
  /** The order after its command, and its state before. */
  | { readonly kind: 'changed'; readonly order: StoredOrder; readonly from: OrderState }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'not theirs' }
  /** A repeated Idempotency-Key: the stored response, or the reason to reject the request. */
  | RepeatResult

export async function applyCommands(
  tx: Queryable,
  at: CommandContext,
  batch: readonly (Placement | AddressedCommand)[],
): Promise<Applied[]> {
  const keys = batch.flatMap((one) => ('order' in one && one.keyed ? keysOf(one.keyed) : []))
  const orderIds = batch.flatMap((one) => ('order' in one ? [] : [one.orderId]))
  const [known, orders] = await Promise.all([
    at.idempotency.find(tx, keys),
    lockOrders(tx, [...new Set(orderIds)]),
  ])
  const placing = openPlacing(known, at)
  const changing = openChanging(orders, at.now)
  const applied = batch.map((one) => ('order' in one ? placing.place(one) : changing.apply(one)))
  const changes = changing.changes()
  const times = {
    now: at.now,
    resendAt: at.now + at.resendAfterMs,
    deadline: at.now + at.deadlineMs,
  }
  const written = Promise.all([
    insertOrders(tx, placing.orders, times),
    changeOrders(tx, changes.orders, at.now),
    watchVoids(tx, changes.voids, times.resendAt),
    confirmVoids(tx, changes.confirmed),
    at.outbox.enqueue(tx, [...placing.messages, ...changes.messages]),
    at.idempotency.remember(tx, placing.responses),
    at.idempotency.complete(tx, changes.responses),
  ])
  // If a message named an order of another profile, its dead letter is written in this transaction after
  // these statements, so the commit cannot be pipelined with them.
  if (!applied.some(({ kind }) => kind === 'not theirs')) tx.last?.()
  await written
  return applied
}

/** Collects what the placements of a batch write. `known` has the requests stored under their keys. */
function openPlacing(known: Map<string, StoredRequest>, { now, deadlineMs }: CommandContext) {
  const orders: (Order & TraceContext)[] = []
  const messages: OutboxMessage[] = []
  const responses: StoredRequest[] = []
  return {
    orders,
    messages,
    responses,
    place({ order: wanted, keyed: requested, trace, waiting }: Placement): Applied {
      const found = requested && lookUp(known, requested)
      if (requested && found?.stored) return repeatResult(requested, found.stored)
      const keyed = found?.keyed
      const order = { ...wanted, idempotencyKey: keyed?.key ?? null }
      if (keyed) {
        const entry = { ...keyed, response: firstResponse(order) }
        known.set(entry.key, entry)
        responses.push(entry)
      }
      orders.push({ ...order, ...trace })
      const message = route('requestPayment', order, null, now, trace, now + deadlineMs)
      messages.push(waiting ? { ...message, waiting } : message)
      return { kind: 'placed', order }
    },
  }
}

/** The response stored under a key when its order is placed; null if the style responds with the outcome. */
function firstResponse(order: Order): StoredResponse | null {
  const respondsAtOnce = flowOf(order.style).response === 'id'
  return respondsAtOnce ? { status: 201, body: JSON.stringify(order.id) } : null
}

/** Decides the commands for locked orders one after the other, because several may address the same order. */
function openChanging(orders: Map<string, StoredOrder>, now: number) {
  const before = new Map(orders)
  const messages: OutboxMessage[] = []
  const voids = new Map<string, TraceContext>()
  const confirmed = new Set<string>()

  return {
    apply({ orderId, profileId, command, trace }: AddressedCommand): Applied {
      const order = orders.get(orderId)
      if (order === undefined) return { kind: 'unknown' }
      if (profileId !== undefined && profileId !== order.profileId) return { kind: 'not theirs' }
      const { state, reason, effects } = decide(order, command)
      const changed =
        state === order.state ? order : { ...order, state, reason, updated: new Date(now) }
      orders.set(orderId, changed)
      for (const effect of effects) messages.push(route(effect, changed, reason, now, trace))
      if (effects.includes('voidPayment')) voids.set(orderId, trace ?? {})
      else if (order.state === 'CANCELED' && confirmsNoMoneyHeld(command)) confirmed.add(orderId)
      return { kind: 'changed', order: changed, from: order.state }
    },

    changes() {
      const changed = [...orders.values()].filter(
        ({ id, state }) => state !== before.get(id)?.state,
      )
      return {
        messages,
        orders: changed.map(({ id, state, reason }): OrderChange => ({ id, to: state, reason })),
        voids: [...voids].map(([orderId, trace]) => ({ orderId, trace })),
        confirmed: [...confirmed],
        responses: responsesOf(changed, before),
      }
    },
  }
}

/** Whether the command reports that billing refused, voided or refunded the payment, each of which is final. */
function confirmsNoMoneyHeld({ type }: OrderCommand): boolean {
  return type === 'refuse' || type === 'acknowledgeRefund' || type === 'confirmVoid'
}

/** The responses for the Idempotency-Keys of the orders that this batch settled. */
function responsesOf(
  changed: readonly StoredOrder[],
  before: ReadonlyMap<string, StoredOrder>,
): (StoredResponse & { key: string })[] {
  return changed.flatMap((order) =>
    order.idempotencyKey !== null && before.get(order.id)?.state === 'PENDING'
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
