/**
 * W3C Trace Context: the two headers by which a call or an event continues a trace. Empty where
 * nothing is traced.
 */
export interface TraceContext {
  readonly traceparent?: string
  readonly tracestate?: string
}

/** What is continued by headers: nothing where they are not fit to be passed on. */
export function traceContextOf(headers: Readonly<Record<string, unknown>>): TraceContext {
  const { traceparent, tracestate } = headers
  if (typeof traceparent !== 'string' || !TRACEPARENT.test(traceparent)) return NO_TRACE
  const isSane = typeof tracestate === 'string' && TRACESTATE.test(tracestate)
  return isSane ? { traceparent, tracestate } : { traceparent }
}

/** The trace context alone of whatever has one. */
export function traceOf({ traceparent, tracestate }: TraceContext): TraceContext {
  if (!traceparent) return NO_TRACE
  return tracestate ? { traceparent, tracestate } : { traceparent }
}

/** What log lines have of a trace, in the names of OpenTelemetry: nothing where there is none. */
export function traceIds({ traceparent }: TraceContext): { trace_id?: string; span_id?: string } {
  if (!traceparent) return NO_TRACE
  const [, trace_id, span_id] = traceparent.split('-') as [string, string, string]
  return { trace_id, span_id }
}

const NO_TRACE = {}

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/
/** Its members are others' affair; 512 characters is what everybody has to pass on. */
const TRACESTATE = /^[\x20-\x7e]{1,512}$/
