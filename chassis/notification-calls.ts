import {
  attemptTimeoutMs,
  type Delivery,
  isFinalRejection,
  type OutboxRow,
} from '../messaging/outbox/outbox.ts'
import type { HttpClient } from '../platform/http/client.ts'

/** Where notification accepts an announcement by HTTP: the body of the event, and its id as the Idempotency-Key. */
export const NOTIFY_PATH = '/notification/'

export interface NotificationCallsOptions {
  readonly http: HttpClient
  readonly notificationUrl: string
  readonly timeoutMs: number
}

/** Delivers the outbox rows that announce an outcome to notification by HTTP (style `http`). */
export function notificationCalls({ http, notificationUrl, timeoutMs }: NotificationCallsOptions) {
  return async (row: OutboxRow): Promise<Delivery> => {
    const { destination, headers, body } = row
    const url = `${notificationUrl}${destination}`
    try {
      const call = { target: 'notification', method: 'POST', url, headers, body } as const
      const response = await http(call, attemptTimeoutMs(row, timeoutMs))
      const { status } = response
      if (status < 300 && isJson(response.body)) return { kind: 'done' }
      const error = `${destination} answered ${status}`
      // A notification of an earlier version rejects a new event; after its update it will accept it.
      const isRetryable = status === 409 || isUnknownEvent(status, response.body)
      return isFinalRejection(status) && !isRetryable
        ? { kind: 'poison', reason: `${error}: ${response.body}` }
        : { kind: 'retry', error }
    } catch (error) {
      return { kind: 'retry', error: `${destination} did not answer: ${(error as Error).message}` }
    }
  }
}

function isUnknownEvent(status: number, problem: string): boolean {
  return status === 400 && problem.includes('"field":"body/event"')
}

/** A misconfigured gateway may answer 200 with an HTML page instead of a response of notification. */
function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
