import {
  context,
  createTraceState,
  DiagLogLevel,
  diag,
  type Span as OtelSpan,
  type Tracer as OtelTracer,
  type ProxyTracerProvider,
  ROOT_CONTEXT,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  type TracerProvider,
  trace,
} from '@opentelemetry/api'
import { core, NodeSDK, type tracing } from '@opentelemetry/sdk-node'
import type { TraceContext } from '../../contracts/trace-context.ts'
import type { Log } from '../async/runtime.ts'
import type { OpenTracer, Span, SpanStart } from './tracing.ts'

export interface OpenTelemetryOptions {
  /**
   * The attribute `service.name` of all spans. OTEL_SERVICE_NAME is ignored, because services can share an
   * environment.
   */
  readonly service: string
  readonly messagingSystem: string
  readonly log: Log
  /** Receives the spans instead of the exporter that the environment configures. */
  readonly processor?: tracing.SpanProcessor
}

/**
 * How long closing waits for the last export. The limit keeps an unreachable collector from delaying a
 * shutdown.
 */
const CLOSE_LIMIT_MS = 3_000

/**
 * Creates a tracer that uses OpenTelemetry, configured by OpenTelemetry's standard environment variables
 * (exporter, protocol, sampler, limits). Only traces are exported, because metrics are scraped and logs go to
 * standard output.
 */
export function createOpenTelemetryTracer(options: OpenTelemetryOptions): OpenTracer {
  const { service, messagingSystem, log, processor } = options
  logDiagnostics(log)
  const sdk = new NodeSDK({
    serviceName: service,
    metricReaders: [],
    logRecordProcessors: [],
    textMapPropagator: null,
    ...(processor && { spanProcessors: [processor] }),
  })
  const tracer = startIsolated(sdk).getTracer('trifold')

  return {
    isOn: true,
    messagingSystem,
    begin: (start) => begin(tracer, start),
    async close() {
      const sent = sdk
        .shutdown()
        .catch((err) => log.warn({ err }, 'failed to export the last spans'))
      const limit = new Promise((resolve) => setTimeout(resolve, CLOSE_LIMIT_MS).unref())
      await Promise.race([sent, limit])
    },
  }
}

/**
 * Starts the SDK, and removes its tracer provider from the globals. There can be only one global provider, but
 * services that share a process need one each. The SDK's global context is not needed either, because contexts
 * are passed on explicitly.
 */
function startIsolated(sdk: NodeSDK): TracerProvider {
  sdk.start()
  const provider = (trace.getTracerProvider() as ProxyTracerProvider).getDelegate()
  trace.disable()
  context.disable()
  return provider
}

/**
 * Logs the SDK's diagnostics, because nothing else reports a failed export. The diagnostics are global, so in
 * a process with several services, all of them go to the log of one service.
 */
function logDiagnostics(log: Log): void {
  const write = (level: 'warn' | 'debug') => (sentence: string) =>
    log[level]({ diagnostic: sentence }, 'OpenTelemetry diagnostic')
  const [warn, debug] = [write('warn'), write('debug')]
  const logger = { error: warn, warn, info: debug, debug, verbose: debug }
  diag.setLogger(logger, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true })
}

const KINDS = {
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
} as const

function begin(tracer: OtelTracer, start: SpanStart): Span {
  const { name, kind, links = [], attributes } = start
  const parent = toSpanContext(start.parent)
  const span = tracer.startSpan(
    name,
    {
      kind: KINDS[kind],
      links: links.flatMap((link) => toSpanContext(link) ?? []).map((context) => ({ context })),
      ...(attributes && { attributes }),
    },
    parent ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT,
  )
  return {
    context: toTraceContext(span.spanContext()),
    end({ attributes: more, error } = {}) {
      if (more) span.setAttributes(more)
      if (error !== undefined) fail(span, error)
      span.end()
    },
  }
}

/** `error.type` must have few distinct values, so it is an error code or a class name, never a message. */
function fail(span: OtelSpan, error: unknown): void {
  const isError = error instanceof Error
  const { code } = isError ? (error as { code?: unknown }) : {}
  const type = isError ? (typeof code === 'string' ? code : error.name) : String(error)
  span.setAttribute('error.type', type)
  span.setStatus({ code: SpanStatusCode.ERROR, ...(isError && { message: error.message }) })
}

function toSpanContext({ traceparent, tracestate }: TraceContext): SpanContext | undefined {
  const parsed = traceparent ? core.parseTraceParent(traceparent) : null
  if (!parsed) return undefined
  const traceState = tracestate ? createTraceState(tracestate) : undefined
  return { ...parsed, isRemote: true, ...(traceState && { traceState }) }
}

function toTraceContext({ traceId, spanId, traceFlags, traceState }: SpanContext): TraceContext {
  const flags = traceFlags.toString(16).padStart(2, '0')
  const traceparent = `00-${traceId}-${spanId}-${flags}`
  const tracestate = traceState?.serialize()
  return tracestate ? { traceparent, tracestate } : { traceparent }
}
