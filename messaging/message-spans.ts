import type { Received } from '../contracts/events.ts'
import { type TraceContext, traceContextOf } from '../contracts/trace-context.ts'
import { beginShared, type SpanStart, type Tracer } from '../platform/telemetry/tracing.ts'
import type { BusMessage } from './bus.ts'
import type { Delivery, OutboxRow } from './outbox/outbox.ts'

/**
 * Message spans, named by OpenTelemetry's conventions for messaging: `send TOPIC` when a message leaves the
 * outbox, `process TOPIC` when it is handled. Each is in the trace whose context the message carries.
 */

/** Begins a span for each row. The returned rows carry the context of their span; pass `end` the error, if any. */
export function beginSend(tracer: Tracer, rows: readonly OutboxRow[]) {
  if (!tracer.isOn) return { rows, end: ignore }
  const spans = beginShared(
    tracer,
    rows.map((row) => sendStart(tracer, row)),
    batchStart(tracer, 'send', 'client', rows.length),
  )
  const withSpan = (row: OutboxRow, index: number) => ({
    ...row,
    headers: { ...row.headers, ...spans.contexts[index] },
  })
  return { rows: rows.map(withSpan), end: (error?: unknown) => spans.end(() => error) }
}

/** A message with its decoded event, or with the reason why it could not be decoded. */
interface ReadMessage<Body, Refusal> {
  readonly message: BusMessage
  readonly read: { readonly event: Received<Body> } | Refusal
}

/**
 * Begins a span for each message. The returned events carry the context of their span. Pass `end` the error
 * that ended the whole run, or a function that returns why a single message was refused.
 */
export function beginProcess<Body, Refusal extends object>(
  tracer: Tracer,
  group: string | undefined,
  run: readonly ReadMessage<Body, Refusal>[],
) {
  type Result = { readonly error?: unknown; refusalOf?(message: BusMessage): string | undefined }
  if (!tracer.isOn) return { run, end: (_result?: Result): void => undefined }
  const spans = beginShared(
    tracer,
    run.map(({ message }) => processStart(tracer, group, message)),
    batchStart(tracer, 'process', 'consumer', run.length),
  )
  return {
    run: run.map((item, index) => withContext(item, spans.contexts[index]!)),
    end: ({ error, refusalOf }: Result = {}) =>
      spans.end((index) => error ?? refusalOf?.(run[index]!.message)),
  }
}

function withContext<Body, Refusal extends object>(
  { message, read }: ReadMessage<Body, Refusal>,
  context: TraceContext,
): ReadMessage<Body, Refusal> {
  if (!('event' in read)) return { message, read }
  const { body, meta } = read.event
  return { message, read: { event: { body, meta: { ...meta, ...context } } } }
}

function sendStart(tracer: Tracer, { destination, eventId, headers }: OutboxRow): SpanStart {
  return {
    name: `send ${destination}`,
    kind: 'producer',
    parent: traceContextOf(headers),
    attributes: {
      ...operation(tracer, 'send'),
      'messaging.destination.name': destination,
      'messaging.message.id': eventId,
    },
  }
}

function processStart(
  tracer: Tracer,
  group: string | undefined,
  { topic, partition, headers }: BusMessage,
): SpanStart {
  return {
    name: `process ${topic}`,
    kind: 'consumer',
    parent: traceContextOf(headers),
    attributes: {
      ...operation(tracer, 'process'),
      'messaging.destination.name': topic,
      'messaging.destination.partition.id': String(partition),
      'messaging.consumer.group.name': group,
      'messaging.message.id': headers.ce_id,
    },
  }
}

/** Records each attempt to deliver a letter as a span in the trace of the request that caused the letter. */
export function tracedLetters(
  tracer: Tracer,
  deliver: (row: OutboxRow) => Promise<Delivery>,
): (row: OutboxRow) => Promise<Delivery> {
  if (!tracer.isOn) return deliver
  return async (row) => {
    const span = tracer.begin({
      name: 'send letter',
      kind: 'client',
      parent: traceContextOf(row.headers),
      attributes: { 'messaging.message.id': row.headers['message-id'] },
    })
    try {
      const delivery = await deliver(row)
      const { kind } = delivery
      span.end({ error: kind === 'done' ? undefined : kind })
      return delivery
    } catch (error) {
      span.end({ error })
      throw error
    }
  }
}

const operation = (tracer: Tracer, name: 'send' | 'process') => ({
  'messaging.system': tracer.messagingSystem,
  'messaging.operation.name': name,
  'messaging.operation.type': name,
})

/** The span of a batch. Its kind for a send is `client`, because the spans of its messages are the producers. */
const batchStart = (
  tracer: Tracer,
  name: 'send' | 'process',
  kind: SpanStart['kind'],
  count: number,
) => ({
  name,
  kind,
  attributes: { ...operation(tracer, name), 'messaging.batch.message_count': count },
})

const ignore = (): void => undefined
