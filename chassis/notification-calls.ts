import {
  attemptTimeoutMs,
  type Delivery,
  isFinalRejection,
  type OutboxRow,
} from '../messaging/outbox/outbox.ts'
import type { HttpClient } from '../platform/http/client.ts'

/**
 * The path at which the notification service accepts announcements by HTTP: the body of the event, with the
 * event's id as the Idempotency-Key.
 */
export const NOTIFY_PATH = '/notification/'

export interface NotificationCallsOptions {
  readonly http: HttpClient
  readonly notificationUrl: string
  readonly timeoutMs: number
}

/**
 * Makes the calls that announce outcomes to the notification service, in styles with announcement by call
 * (`http`).
 */
export function notificationCalls({ http, notificationUrl, timeoutMs }: NotificationCallsOptions) {
  return async (row: OutboxRow): Promise<Delivery> => {
    const { destination, headers, body } = row
    const url = `${notificationUrl}${destination}`
    try {
      const call = { target: 'notification', method: 'POST', url, headers, body } as const
      const response = await http(call, attemptTimeoutMs(row, timeoutMs))
      const { status } = response
      if (status < 300 && isJson(response.body)) return { kind: 'done' }
      const error = `${destination} responded with status ${status}`
      // An earlier version of the notification service rejects an event that it does not know. Once updated,
      // the service will accept it.
      const isRetryable = status === 409 || isUnknownEvent(status, response.body)
      return isFinalRejection(status) && !isRetryable
        ? { kind: 'poison', reason: `${error}: ${response.body}` }
        : { kind: 'retry', error }
    } catch (error) {
      return { kind: 'retry', error: `${destination} did not respond: ${(error as Error).message}` }
    }
  }
}

function isUnknownEvent(status: number, problem: string): boolean {
  return status === 400 && problem.includes('"field":"body/event"')
}

/** A misconfigured gateway may respond with 200 and an HTML page in place of the notification service. */
function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
