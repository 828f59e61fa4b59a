import Type from 'typebox'
import { operator } from '../../contracts/access.ts'
import {
  NEXT_CURSOR_HEADER,
  WaitingOrder as WaitingOrderSchema,
  type WaitingOrderView,
  WaitingPage,
} from '../../contracts/http.ts'
import type { HttpServer } from '../../platform/http/server.ts'
import type { WaitingFilter, WaitingOrder } from './store.ts'

/** Routes for operators: the orders that wait for the billing service. */
export interface OperatorRoutes {
  readonly voidAttempts: number
  readonly listWaiting: (filter: WaitingFilter) => Promise<WaitingOrder[]>
}

export function operatorRoutes(app: HttpServer, { voidAttempts, listWaiting }: OperatorRoutes) {
  app.get(
    '/orders/pending',
    {
      config: { access: [operator('operator:read')] },
      schema: {
        operationId: 'listWaitingOrders',
        summary:
          'Orders whose payment request or void the billing service has not answered, oldest first',
        tags: ['operators'],
        querystring: WaitingPage,
        response: { 200: Type.Array(WaitingOrderSchema) },
      },
    },
    async (request, reply) => {
      const { stuck = false, waitsFor, ...page } = request.query
      const filter = stuck
        ? { ...page, waitsFor: 'void' as const, minAttempts: voidAttempts }
        : { ...page, ...(waitsFor && { waitsFor }), minAttempts: 0 }
      const orders = await listWaiting(filter)
      const last = orders.at(-1)
      if (last && orders.length === page.limit) reply.header(NEXT_CURSOR_HEADER, last.order.id)
      return orders.map((one) => view(one, voidAttempts))
    },
  )
}

function view(
  { order, waitsFor, attempts, nextAttempt, deadline }: WaitingOrder,
  voidAttempts: number,
): WaitingOrderView {
  const { id, profileId, state, style, reason, created } = order
  return {
    id,
    profileId,
    state,
    style,
    reason,
    waitsFor,
    attempts,
    nextAttempt: nextAttempt.toISOString(),
    deadline: deadline?.toISOString() ?? null,
    stuck: waitsFor === 'void' && attempts >= voidAttempts,
    created: created.toISOString(),
  }
}
