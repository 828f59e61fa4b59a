/**
 * W3C Trace Context: the two headers that make a call or an event part of its caller's trace. Empty if there
 * is no trace.
 */
export interface TraceContext {
  readonly traceparent?: string
  readonly tracestate?: string
}

/** The trace context in the headers of a request or message. Empty if `traceparent` is missing or malformed. */
export function traceContextOf(headers: Readonly<Record<string, unknown>>): TraceContext {
  const { traceparent, tracestate } = headers
  if (typeof traceparent !== 'string' || !TRACEPARENT.test(traceparent)) return NO_TRACE
  const isValid = typeof tracestate === 'string' && TRACESTATE.test(tracestate)
  return isValid ? { traceparent, tracestate } : { traceparent }
}

/** Returns only the trace context of an object with other members. */
export function traceOf({ traceparent, tracestate }: TraceContext): TraceContext {
  if (!traceparent) return NO_TRACE
  return tracestate ? { traceparent, tracestate } : { traceparent }
}

/** The trace id and span id for a log line, under OpenTelemetry's names. Empty if there is no trace. */
export function traceIds({ traceparent }: TraceContext): { trace_id?: string; span_id?: string } {
  if (!traceparent) return NO_TRACE
  const [, trace_id, span_id] = traceparent.split('-') as [string, string, string]
  return { trace_id, span_id }
}

const NO_TRACE = {}

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/
/**
 * The header's members are passed on without being parsed. The standard requires at least 512 characters to
 * be passed on.
 */
const TRACESTATE = /^[\x20-\x7e]{1,512}$/
