import {
  attemptTimeoutMs,
  type Delivery,
  isFinalRejection,
  type OutboxRow,
} from '../messaging/outbox/outbox.ts'
import type { HttpClient } from '../platform/http/client.ts'

/** Where notification takes an announcement by HTTP; the body is the event's, the key is its id. */
export const NOTIFY_PATH = '/notification/'

export interface NotificationCallsOptions {
  readonly http: HttpClient
  readonly notificationUrl: string
  readonly timeoutMs: number
}

/** Calls out, in `http`: outbox rows that announce to notification what has become of an order. */
export function notificationCalls({ http, notificationUrl, timeoutMs }: NotificationCallsOptions) {
  return async (row: OutboxRow): Promise<Delivery> => {
    const { destination, headers, body } = row
    const url = `${notificationUrl}${destination}`
    try {
      const call = { target: 'notification', method: 'POST', url, headers, body } as const
      const { status, body: said } = await http(call, attemptTimeoutMs(row, timeoutMs))
      if (status < 300 && isJson(said)) return { kind: 'done' }
      const error = `${destination} answered ${status}`
      // An earlier version of notification does not know a new event; the next one will.
      const isFinal = isFinalRejection(status) && status !== 409 && !isUnknownEvent(status, said)
      return isFinal ? { kind: 'poison', reason: `${error}: ${said}` } : { kind: 'retry', error }
    } catch (error) {
      return { kind: 'retry', error: `${destination} gave no answer: ${(error as Error).message}` }
    }
  }
}

function isUnknownEvent(status: number, problem: string): boolean {
  return status === 400 && problem.includes('"field":"body/event"')
}

/** A gateway that leads elsewhere may answer 200 with a page. */
function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
