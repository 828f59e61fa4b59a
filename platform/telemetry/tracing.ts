import { type TraceContext, traceOf } from '../../contracts/trace-context.ts'

/**
 * The tracing interface of the services. The trace context is passed on explicitly, in the headers of calls
 * and messages, so that it is not lost in the outbox, in a restart or in a batch. If tracing is off, no spans
 * are created, and the caller's context is passed on unchanged.
 */
export interface Tracer {
  /** If false, spans are ignored, so callers can skip the work of describing them. */
  readonly isOn: boolean
  /** The kind of broker, as a value of the attribute `messaging.system`. */
  readonly messagingSystem: string
  begin(start: SpanStart): Span
}

/** A tracer that has to be closed when its service has closed. */
export interface OpenTracer extends Tracer {
  /** Exports the remaining spans. Takes a few seconds at most. */
  close(): Promise<void>
}

export interface SpanStart {
  readonly name: string
  readonly kind: 'server' | 'client' | 'producer' | 'consumer'
  /** The context that the span continues. If this is empty, the span starts a new trace. */
  readonly parent: TraceContext
  readonly links?: readonly TraceContext[]
  readonly attributes?: Attributes
}

export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>

export interface Span {
  /** The context for the calls and messages that are sent within this span. */
  readonly context: TraceContext
  /** Ends the span. `error` is the thrown value, or a word for what failed. */
  end(result?: { readonly error?: unknown; readonly attributes?: Attributes }): void
}

/** The tracer of a service when tracing is off. */
export const noTracing: Tracer = {
  isOn: false,
  messagingSystem: '',
  begin: ({ parent }) => ({ context: traceOf(parent), end: () => undefined }),
}

/** The spans for work that several requests or messages share. */
export interface SharedSpans {
  /** The context of each member's span, in the trace of that member. */
  readonly contexts: readonly TraceContext[]
  /** `errorOf` returns the error of the member at an index, if it failed. */
  end(errorOf?: (index: number) => unknown): void
}

/** The maximum number of links on one span. Members beyond this limit still have a link to the batch. */
const MAX_LINKS = 128

/**
 * Begins a span for each member, in the trace of that member. If there are several members, this also begins
 * a span for the batch, in a new trace. The batch and its members are linked in both directions.
 */
export function beginShared(
  tracer: Tracer,
  members: readonly SpanStart[],
  batch: Pick<SpanStart, 'name' | 'kind' | 'attributes'>,
): SharedSpans {
  const links = members.map(({ parent }) => parent).filter(({ traceparent }) => traceparent)
  const batchSpan =
    members.length > 1
      ? tracer.begin({ ...batch, parent: {}, links: links.slice(0, MAX_LINKS) })
      : undefined
  const toBatch = batchSpan ? [batchSpan.context] : []
  const spans = members.map((member) => tracer.begin({ ...member, links: toBatch }))
  return {
    contexts: spans.map(({ context }) => context),
    end(errorOf = () => undefined) {
      for (const [index, span] of spans.entries()) span.end({ error: errorOf(index) })
      const errors = batchSpan ? spans.map((_, index) => errorOf(index)) : []
      // The batch has failed only if all of its members have failed.
      batchSpan?.end({
        error: errors.every((error) => error !== undefined) ? errors[0] : undefined,
      })
    },
  }
}

/** Runs a transaction that several requests share, with a span in the trace of each request. */
export async function inCommitSpans<T>(
  tracer: Tracer,
  schema: string,
  requests: readonly TraceContext[],
  commit: () => Promise<T>,
): Promise<T> {
  if (!tracer.isOn) return commit()
  const span = {
    name: `commit ${schema}`,
    kind: 'client',
    attributes: { 'db.system.name': 'postgresql', 'db.operation.name': 'commit' },
  } as const
  const batch = { 'db.operation.batch.size': requests.length }
  const spans = beginShared(
    tracer,
    requests.map((parent) => ({ ...span, parent })),
    { ...span, attributes: { ...span.attributes, ...batch } },
  )
  try {
    const result = await commit()
    spans.end()
    return result
  } catch (error) {
    spans.end(() => error)
    throw error
  }
}
