import { type Delivery, isFinalRejection, type OutboxRow } from '../../messaging/outbox/outbox.ts'
import type { HttpClient } from '../../platform/http/client.ts'

/**
 * Makes the calls that notify the order service of a refund, in styles whose results are not published on a
 * topic (`http`).
 */
export interface OrderCallsOptions {
  readonly http: HttpClient
  readonly orderUrl: string
  readonly timeoutMs: number
}

export function orderCalls({ http, orderUrl, timeoutMs }: OrderCallsOptions) {
  return async ({ destination, headers }: OutboxRow): Promise<Delivery> => {
    const url = `${orderUrl}${destination}`
    try {
      const call = { target: 'order', method: 'DELETE', url, headers } as const
      const { status, body } = await http(call, timeoutMs)
      // ORDER_NOT_FOUND is final, because clients can send payments to the billing service directly, without
      // an order. A 404 without that code comes from a gateway, and says nothing about the order.
      const code = codeOf(body)
      if (status < 300 || code === 'ORDER_NOT_FOUND') return { kind: 'done' }
      const error = `${destination} responded with status ${status}`
      return (isFinalRejection(status) && status !== 409) || code === 'NOT_YOURS'
        ? { kind: 'poison', reason: `${error}: ${body}` }
        : { kind: 'retry', error }
    } catch (error) {
      return { kind: 'retry', error: `${destination} did not respond: ${(error as Error).message}` }
    }
  }
}

function codeOf(body: string): unknown {
  try {
    return (JSON.parse(body) as { code?: unknown } | null)?.code
  } catch {
    return undefined
  }
}
