import { DEADLINE_HEADER, deadlineHeader } from '../contracts/deadline.ts'
import { EVENTS, type Event, type EventMeta, eventHeaders } from '../contracts/events.ts'
import { STYLE_HEADER } from '../contracts/style.ts'
import { traceOf } from '../contracts/trace-context.ts'
import type { OutboxMessage } from '../messaging/outbox/outbox.ts'

/**
 * Builds outbox messages for the events and calls that services send each other. The types and topics come
 * from the table `EVENTS`, so a body that does not match its event does not compile.
 */

/**
 * An event, addressed to the topic of its kind, with the account's id as its key. `now` is in epoch
 * milliseconds.
 */
export function eventMessage(
  from: 'order' | 'billing',
  body: Event,
  meta: EventMeta,
  now: number,
): OutboxMessage {
  return {
    carrier: 'broker',
    destination: EVENTS[body.event].topic,
    key: body.accountId,
    eventId: meta.id,
    body: JSON.stringify(body),
    headers: eventHeaders(body.event, from, now, meta),
  }
}

/**
 * An HTTP call: a POST if there is a body, otherwise a DELETE. A POST carries the event id as its
 * Idempotency-Key, so that the receiver deduplicates retries.
 */
export function callMessage(
  path: string,
  key: string,
  meta: EventMeta,
  body?: object,
): OutboxMessage {
  return {
    carrier: 'http',
    destination: path,
    key,
    eventId: meta.id,
    body: body ? JSON.stringify(body) : '',
    headers: {
      ...(body && { 'content-type': 'application/json', 'idempotency-key': meta.id }),
      ...(meta.style && { [STYLE_HEADER]: meta.style }),
      ...(meta.reason && { 'x-reason': meta.reason }),
      ...(meta.deadlineMs && { [DEADLINE_HEADER]: deadlineHeader(meta.deadlineMs) }),
      ...traceOf(meta),
    },
  }
}
