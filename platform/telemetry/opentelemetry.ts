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
  /** Its `service.name`, whatever OTEL_SERVICE_NAME says: services may share an environment. */
  readonly service: string
  readonly messagingSystem: string
  readonly log: Log
  /** Takes the spans instead of what the environment names. */
  readonly processor?: tracing.SpanProcessor
}

/** A collector that is away must not hold up a service that stops. */
const CLOSE_LIMIT_MS = 3_000

/**
 * The tracer on OpenTelemetry, set up as the standard variables of the environment say: exporter,
 * protocol, sampler, limits. Only traces are exported: metrics and logs have their own ways out.
 */
export function createOpenTelemetryTracer(options: OpenTelemetryOptions): OpenTracer {
  const { service, messagingSystem, log, processor } = options
  tellFaults(log)
  const sdk = new NodeSDK({
    serviceName: service,
    metricReaders: [],
    logRecordProcessors: [],
    textMapPropagator: null,
    ...(processor && { spanProcessors: [processor] }),
  })
  const tracer = startApart(sdk).getTracer('trifold')

  return {
    isOn: true,
    messagingSystem,
    begin: (start) => begin(tracer, start),
    async close() {
      const shut = sdk.shutdown().catch((err) => log.warn({ err }, 'the last spans were not sent'))
      const limit = new Promise((resolve) => setTimeout(resolve, CLOSE_LIMIT_MS).unref())
      await Promise.race([shut, limit])
    },
  }
}

/**
 * Starts the SDK and takes its tracer provider out of the globals, where there is room for one only:
 * services that share a process have a provider each. The contexts are handed on explicitly, so the
 * one that the SDK would find by itself is not needed.
 */
function startApart(sdk: NodeSDK): TracerProvider {
  sdk.start()
  const provider = (trace.getTracerProvider() as ProxyTracerProvider).getDelegate()
  trace.disable()
  context.disable()
  return provider
}

/** The SDK tells of an export that failed here and nowhere else; the first log is the process's. */
function tellFaults(log: Log): void {
  const write = (level: 'warn' | 'debug') => (sentence: string) =>
    log[level]({ said: sentence }, 'OpenTelemetry has something to say')
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

/** `error.type` has few values: a code or a class, never a message. */
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
