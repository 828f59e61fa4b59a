import {
  type Delivery,
  isFinalRefusal,
  type OutboxRow,
  tryWithinMs,
} from '../../messaging/outbox.ts'
import type { HttpClient } from '../../platform/http-client.ts'
import { NOTIFY_PATH } from './routing.ts'

/** Calls out, in `http`: rows of the outbox that go to notification, or tell order of a refund. */
export interface NotificationCallsOptions {
  readonly http: HttpClient
  readonly notificationUrl: string
  readonly orderUrl: string
  readonly timeoutMs: number
}

const TO_NOTIFICATION = { target: 'notification', method: 'POST' } as const
const TO_ORDER = { target: 'order', method: 'DELETE' } as const

export function notificationCalls(options: NotificationCallsOptions) {
  const { http, notificationUrl, orderUrl, timeoutMs } = options

  return async (row: OutboxRow): Promise<Delivery> => {
    const { destination, headers, body } = row
    const notify = destination === NOTIFY_PATH
    try {
      const { status, body: said } = notify
        ? await http(
            { ...TO_NOTIFICATION, url: `${notificationUrl}${destination}`, headers, body },
            tryWithinMs(row, timeoutMs),
          )
        : await http({ ...TO_ORDER, url: `${orderUrl}${destination}`, headers }, timeoutMs)
      // Order does not know an order that was paid by REST. The same status without a code of ours
      // comes from a gateway, and says nothing about the order.
      const code = codeOf(said)
      if (status < 300 || code === 'ORDER_NOT_FOUND') return { kind: 'done' }
      const error = `${destination} answered ${status}`
      const final = (isFinalRefusal(status) && status !== 409) || code === 'NOT_YOURS'
      return final ? { kind: 'poison', reason: `${error}: ${said}` } : { kind: 'retry', error }
    } catch (error) {
      return { kind: 'retry', error: `${destination} gave no answer: ${(error as Error).message}` }
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
