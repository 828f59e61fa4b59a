import { type TraceContext, traceOf } from '../../contracts/trace-context.ts'

/**
 * Traces, as the services see them. The context is handed on explicitly, in the headers of calls and
 * messages, so that it survives the outbox, a restart and the way through a batch. Where tracing is
 * off, a span is nothing and continues what it was given: a caller's context passes through.
 */
export interface Tracer {
  /** False where nobody need describe what would be a span. */
  readonly isOn: boolean
  /** What the broker is, in the terms of the attribute `messaging.system`. */
  readonly messagingSystem: string
  begin(start: SpanStart): Span
}

/** A tracer with what has to be closed, at the latest when its service has been. */
export interface OpenTracer extends Tracer {
  /** Sends the spans that are left, within a few seconds. */
  close(): Promise<void>
}

export interface SpanStart {
  readonly name: string
  readonly kind: 'server' | 'client' | 'producer' | 'consumer'
  /** What it continues; a trace begins with it where that is empty. */
  readonly parent: TraceContext
  readonly links?: readonly TraceContext[]
  readonly attributes?: Attributes
}

export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>

export interface Span {
  /** What the next step continues. */
  readonly context: TraceContext
  /** `error` is whatever was thrown, or a word for what went wrong. */
  end(result?: { readonly error?: unknown; readonly attributes?: Attributes }): void
}

/** The tracer of a service that is not traced. */
export const noTracing: Tracer = {
  isOn: false,
  messagingSystem: '',
  begin: ({ parent }) => ({ context: traceOf(parent), end: () => undefined }),
}

/** The spans of work that is done for several at once. */
export interface SharedSpans {
  /** One for each, in its own trace. */
  readonly contexts: readonly TraceContext[]
  /** `errorOf` says what went wrong for one of them, by its place. */
  end(errorOf?: (index: number) => unknown): void
}

/** No span has more links: what is beyond them still has its own link to the whole. */
const MAX_LINKS = 128

/**
 * Begins a span for each member, in the trace of that member, and where there are several one of the
 * whole, in a trace of its own, which has links to the members and they to it.
 */
export function beginShared(
  tracer: Tracer,
  members: readonly SpanStart[],
  whole: Pick<SpanStart, 'name' | 'kind' | 'attributes'>,
): SharedSpans {
  const links = members.map(({ parent }) => parent).filter(({ traceparent }) => traceparent)
  const together =
    members.length > 1
      ? tracer.begin({ ...whole, parent: {}, links: links.slice(0, MAX_LINKS) })
      : undefined
  const toWhole = together ? [together.context] : []
  const spans = members.map((member) => tracer.begin({ ...member, links: toWhole }))
  return {
    contexts: spans.map(({ context }) => context),
    end(errorOf = () => undefined) {
      for (const [index, span] of spans.entries()) span.end({ error: errorOf(index) })
      const errors = together ? spans.map((_, index) => errorOf(index)) : []
      // One refused message is no failure of the rest.
      together?.end({ error: errors.every((error) => error !== undefined) ? errors[0] : undefined })
    },
  }
}

/** Runs a transaction that is shared by requests as a span in the trace of each. */
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
