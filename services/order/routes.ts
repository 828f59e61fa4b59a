import Type from 'typebox'
import { keyedRequest, type StoredResponse, sendStored } from '../../chassis/idempotency.ts'
import { customer, service } from '../../contracts/access.ts'
import {
  CommandHeaders,
  Id,
  IdParams,
  KEYED_PROBLEMS,
  NEXT_CURSOR_HEADER,
  Order as OrderSchema,
  type OrderView,
  Owner,
  OwnerPage,
  PlaceOrder,
  STYLE_PROBLEMS,
  WaitHeaders,
} from '../../contracts/http.ts'
import { toUnits } from '../../contracts/money.ts'
import { Fault } from '../../contracts/problems.ts'
import { flowOf, type InteractionStyle, requestedStyle } from '../../contracts/style.ts'
import type { Caller } from '../../platform/async/coalesce.ts'
import type { HttpServer } from '../../platform/http/server.ts'
import type { AddressedCommand, Applied, Placement } from './commands.ts'
import { outcomeResponse } from './commands.ts'
import { type Order, priceOf } from './order.ts'
import type { StoredOrder } from './store.ts'

/** Routes for customers. The callbacks are the service's parts behind these routes. */
export interface OrderRoutes {
  readonly newId: () => string
  readonly unitPriceMinor: bigint
  readonly defaultStyle: InteractionStyle
  readonly allowOverride: boolean
  /**
   * Milliseconds that a request waits for the outcome of its order, if its style responds with the outcome.
   */
  readonly outcomeTimeoutMs: number
  readonly apply: (command: Placement | AddressedCommand, caller: Caller) => Promise<Applied>
  readonly find: (orderId: string) => Promise<StoredOrder | undefined>
  /**
   * Whether this profile's order is certainly PENDING, as far as can be told without reading the database.
   */
  readonly isPending: (orderId: string, profileId: string) => boolean
  /**
   * The response stored under this Idempotency-Key: null while the outcome is open, undefined if the key is
   * unknown.
   */
  readonly findResponse: (key: string) => Promise<StoredResponse | null | undefined>
  readonly list: (
    profileId: string,
    page: { limit: number; cursor?: string },
  ) => Promise<StoredOrder[]>
  /** Starts waiting for the order's outcome. */
  readonly awaitOutcome: (orderId: string) => {
    within: (limitMs: number) => Promise<StoredOrder | undefined>
    cancel: () => void
  }
}

/** Shorter than the time that a process has for stopping, because stopping waits for open requests. */
const MAX_WAIT_SECONDS = 15
/**
 * How often a waiting read reads the order again, in milliseconds, in case the notification of its outcome is
 * lost.
 */
const POLL_MS = 500

export function orderRoutes(app: HttpServer, routes: OrderRoutes): void {
  placingRoute(app, routes)
  readingRoutes(app, routes)
  deletingRoute(app, routes)
}

/** The ways in which placing an order can fail, including no response from the billing service. */
const PLACING_PROBLEMS = [
  'NOT_ENOUGH_MONEY',
  'ACCOUNT_NOT_FOUND',
  'ORDER_CANCELED',
  'BILLING_UNREACHABLE',
  'OUTCOME_UNKNOWN',
] as const

function placingRoute(app: HttpServer, routes: OrderRoutes): void {
  app.post(
    '/orders',
    {
      config: { access: [customer('orders:write', 'query/profileId')] },
      schema: {
        operationId: 'placeOrder',
        summary: 'Place an order',
        problems: [...STYLE_PROBLEMS, ...KEYED_PROBLEMS, ...PLACING_PROBLEMS],
        querystring: Owner,
        headers: CommandHeaders,
        body: PlaceOrder,
        response: { 201: Id },
      },
    },
    async (request, reply) => {
      const { profileId } = request.query
      const style = requestedStyle(request.headers['x-interaction-style'], routes)
      const { productQuantity } = request.body
      const priceMinor = priceOf(productQuantity, routes.unitPriceMinor)
      if (priceMinor === undefined) {
        const detail = 'the total exceeds the largest payment allowed'
        throw new Fault('VALIDATION_FAILED', { field: 'body/productQuantity', detail })
      }
      const key = request.headers['idempotency-key']
      const content = { profileId, productQuantity }
      const keyed = keyedRequest(key, 'POST /orders', content, request.principal)
      const order: Order = {
        id: routes.newId(),
        profileId,
        productQuantity,
        priceMinor,
        style,
        state: 'PENDING',
        reason: null,
        idempotencyKey: keyed?.key ?? null,
      }
      const placement = { order, keyed, trace: request.trace, waiting: request }
      return sendStored(reply, await placeAndSettle(routes, placement, request))
    },
  )
}

function readingRoutes(app: HttpServer, routes: OrderRoutes): void {
  app.get(
    '/orders/:id',
    {
      config: { access: [customer('orders:read', 'query/profileId')] },
      schema: {
        operationId: 'getOrder',
        problems: ['NOT_YOURS', 'ORDER_NOT_FOUND'],
        responseHeaders: { 'preference-applied': { type: 'string', examples: ['wait=5'] } },
        summary:
          'One order; with Prefer: wait=N, the response waits up to N seconds for its outcome',
        params: IdParams,
        querystring: Owner,
        headers: WaitHeaders,
        response: { 200: OrderSchema },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const waitSeconds = waitOf(request.headers.prefer)
      if (waitSeconds > 0) reply.header('preference-applied', `wait=${waitSeconds}`)
      const { profileId } = request.query
      return view(ownedBy(await findSettled(routes, { id, profileId }, waitSeconds), profileId))
    },
  )

  app.get(
    '/orders',
    {
      config: { access: [customer('orders:read', 'query/profileId')] },
      schema: {
        operationId: 'listOrders',
        summary: "A profile's orders, newest first",
        querystring: OwnerPage,
        response: { 200: Type.Array(OrderSchema) },
      },
    },
    async (request, reply) => {
      const { profileId, ...page } = request.query
      const orders = await routes.list(profileId, page)
      const last = orders.at(-1)
      if (last && orders.length === page.limit) {
        reply.header(NEXT_CURSOR_HEADER, String(last.orderNumber))
      }
      return orders.map(view)
    },
  )
}

function deletingRoute(app: HttpServer, routes: OrderRoutes): void {
  app.delete(
    '/orders/:id',
    {
      config: { access: [customer('orders:write', 'query/profileId'), service('billing')] },
      schema: {
        operationId: 'deleteOrder',
        problems: ['NOT_YOURS', 'ORDER_NOT_FOUND'],
        summary: 'Cancel an order; if it was paid, the payment is refunded',
        params: IdParams,
        querystring: Owner,
        response: { 200: Id },
      },
    },
    async (request) => {
      const { trace } = request
      const { id: orderId } = request.params
      const { profileId } = request.query
      const command = { type: 'delete' } as const
      const applied = await routes.apply({ orderId, profileId, command, trace }, request)
      if (applied.kind === 'unknown') throw new Fault('ORDER_NOT_FOUND')
      if (applied.kind === 'not theirs') throw new Fault('NOT_YOURS')
      return orderId
    },
  )
}

/** Places the order and, if its style responds with the outcome, waits for it. */
async function placeAndSettle(
  routes: OrderRoutes,
  placement: Placement,
  caller: Caller & { remainingMs(): number },
): Promise<StoredResponse> {
  const { order } = placement
  const respondsAtOnce = flowOf(order.style).response === 'id'
  const outcome = respondsAtOnce ? undefined : routes.awaitOutcome(order.id)
  try {
    const placed = await routes.apply(placement, caller)
    if (placed.kind === 'repeated') return placed.response
    if (placed.kind === 'refused') throw placed.fault
    if (outcome === undefined) return { status: 201, body: JSON.stringify(order.id) }
    const waitMs = Math.min(routes.outcomeTimeoutMs, caller.remainingMs())
    const settled = (await outcome.within(waitMs)) ?? (await routes.find(order.id))
    if (settled === undefined || settled.state === 'PENDING') {
      throw new Fault('OUTCOME_UNKNOWN', { orderId: order.id })
    }
    return await settledResponse(routes, settled)
  } finally {
    outcome?.cancel()
  }
}

/**
 * An Idempotency-Key has one response. By the time this request reads the outcome, the order may have been
 * approved and then refunded, and another request with the same key may have received the approval. The
 * stored response therefore wins over the order's current state.
 */
async function settledResponse(routes: OrderRoutes, settled: StoredOrder): Promise<StoredResponse> {
  const { idempotencyKey: key, reason } = settled
  const mayHaveBeenApproved = reason === 'DELETED' || reason === 'REFUNDED'
  const stored = key !== null && mayHaveBeenApproved ? await routes.findResponse(key) : undefined
  return stored ?? outcomeResponse(settled)
}

async function findSettled(
  routes: OrderRoutes,
  { id, profileId }: { readonly id: string; readonly profileId: string },
  waitSeconds: number,
): Promise<StoredOrder | undefined> {
  let mustRead = waitSeconds === 0 || !routes.isPending(id, profileId)
  for (let leftMs = waitSeconds * 1000; ; leftMs -= POLL_MS) {
    const outcome = routes.awaitOutcome(id)
    try {
      if (mustRead) {
        const order = await routes.find(id)
        if (order?.state !== 'PENDING' || leftMs <= 0) return order
      }
      mustRead = true
      const settled = await outcome.within(Math.min(leftMs, POLL_MS))
      if (settled) return settled
    } finally {
      outcome.cancel()
    }
  }
}

/**
 * The seconds in the `wait` preference of a `Prefer` header (RFC 7240), at most MAX_WAIT_SECONDS; 0 if there
 * is none.
 */
export function waitOf(prefer: string | undefined): number {
  const seconds = /(?:^|[,;\s])wait\s*=\s*(\d{1,4})/i.exec(prefer ?? '')?.[1]
  return Math.min(Number(seconds ?? 0), MAX_WAIT_SECONDS)
}

function ownedBy(order: StoredOrder | undefined, profileId: string): StoredOrder {
  if (order === undefined) throw new Fault('ORDER_NOT_FOUND')
  if (order.profileId !== profileId) throw new Fault('NOT_YOURS')
  return order
}

function view(order: StoredOrder): OrderView {
  return {
    id: order.id,
    profileId: order.profileId,
    orderNumber: Number(order.orderNumber),
    productQuantity: order.productQuantity,
    state: order.state,
    price: toUnits(order.priceMinor),
    style: order.style,
    reason: order.reason,
    created: order.created.toISOString(),
    updated: order.updated.toISOString(),
  }
}
