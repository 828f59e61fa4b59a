import type { FastifyReply, FastifyRequest } from 'fastify'
import { Fault } from '../../contracts/problems.ts'
import { type TraceContext, traceContextOf, traceIds } from '../../contracts/trace-context.ts'
import type { PlainSchema } from '../process/schema-text.ts'
import type { Telemetry } from '../telemetry/telemetry.ts'
import type { Span, SpanStart, Tracer } from '../telemetry/tracing.ts'
import { pathWithoutQuery } from './request-target.ts'
import type { HttpServer } from './validation.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * The trace context for work on the request: that of the request's span or, if there is no span, that of
     * the caller.
     */
    trace: TraceContext
    span: Span | undefined
  }
  interface FastifyContextConfig {
    /**
     * Requests to this route have no span and are logged only at debug. Set for probes and scrapes, which
     * arrive all the time.
     */
    quiet?: boolean
  }
}

/**
 * Headers that keep a browser from interpreting data as a page. They are constant, because building a policy
 * for each response would cost more than the rest of a request. Pages have their own policy.
 */
export const DATA_HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
}

/**
 * Adds the hooks that run for every request. They read its id and trace context, send the id back, and count,
 * time and log the response.
 */
export function addRequestHooks(
  app: HttpServer,
  telemetry: Telemetry,
  tracer: Tracer,
  isTrusted: (request: FastifyRequest) => boolean,
): void {
  let isClosing = false
  app.addHook('preClose', async () => {
    isClosing = true
  })
  app.decorateRequest('trace')
  app.decorateRequest('span')

  // These hooks run for every request, so they use callbacks, which cost less than promises.
  app.addHook('onRequest', (request, reply, done) => {
    const caller = traceContextOf(request.headers)
    const isTraced = tracer.isOn && !request.routeOptions.config.quiet
    request.span = isTraced
      ? tracer.begin({ ...spanOf(request), ...continuing(caller, isTrusted(request)) })
      : undefined
    request.trace = request.span?.context ?? caller
    if (request.trace.traceparent) request.log = request.log.child(traceIds(request.trace))
    reply.header('x-request-id', request.id).headers(DATA_HEADERS)
    // Requests that are already running finish. Later requests, on connections that are still open, are
    // rejected.
    const detail = 'the service is closing'
    done(isClosing ? new Fault('SERVICE_UNAVAILABLE', { detail }) : undefined)
  })

  app.addHook('onSend', (request, reply, payload, done) => {
    if (isClosing) reply.header('connection', 'close')
    if (!isBareText(payload, request, reply)) return done(null, payload)
    reply.type('application/json; charset=utf-8')
    done(null, JSON.stringify(payload))
  })

  app.addHook('onResponse', (request, reply, done) => {
    const { method } = request
    const route = request.routeOptions.url ?? 'unmatched'
    const status = reply.statusCode
    const durationMs = Math.round(reply.elapsedTime * 1000) / 1000
    telemetry.count('trifold_http_requests_total', { method, route, status: String(status) })
    telemetry.observe('trifold_http_request_seconds', durationMs / 1000, { method, route })
    request.log[levelOf(request, status, durationMs)](
      { method, route, status, durationMs },
      'request completed',
    )
    request.span?.end({
      attributes: { 'http.response.status_code': status },
      error: status >= 500 ? String(status) : undefined,
    })
    done()
  })
}

/**
 * Only requests that failed or were slow are logged at info. A line for each request would cost more than all
 * other logging, and proxies keep access logs.
 */
function levelOf(request: FastifyRequest, status: number, durationMs: number): 'debug' | 'info' {
  const isNotable = status >= 500 || durationMs >= SLOW_MS
  return isNotable && !request.routeOptions.config.quiet ? 'info' : 'debug'
}

const SLOW_MS = 1_000

/**
 * Whether the payload is text that has to be sent as a JSON string, according to the route's schema. By
 * default, Fastify would send it as plain text, without quotes. If another content type is already set, the
 * text is JSON already.
 */
function isBareText(payload: unknown, request: FastifyRequest, reply: FastifyReply): boolean {
  if (typeof payload !== 'string') return false
  if (reply.getHeader('content-type') !== 'text/plain; charset=utf-8') return false
  const responses = request.routeOptions.schema?.response as Record<string, PlainSchema> | undefined
  return responses?.[reply.statusCode]?.type === 'string'
}

/** The request id that the caller sent, if it is safe in headers and log lines; otherwise a new id. */
export function requestId(header: unknown): string {
  const isSafe = typeof header === 'string' && /^[\w.-]{1,128}$/.test(header)
  return isSafe ? header : crypto.randomUUID()
}

/**
 * A trace context decides whether the trace is sampled, so only the contexts of trusted callers are
 * continued. Any other context is linked from a new trace.
 */
function continuing(caller: TraceContext, isTrusted: boolean): Pick<SpanStart, 'parent' | 'links'> {
  if (isTrusted) return { parent: caller }
  return { parent: {}, ...(caller.traceparent && { links: [caller] }) }
}

/**
 * Follows OpenTelemetry's conventions for HTTP servers. The name of the span contains the route instead of
 * the path, so that there are few distinct names.
 */
function spanOf(request: FastifyRequest): Omit<SpanStart, 'parent'> {
  const { method, url, protocol } = request
  const route = request.routeOptions.url
  return {
    name: route ? `${method} ${route}` : method,
    kind: 'server',
    attributes: {
      'http.request.method': method,
      'http.route': route,
      'url.path': pathWithoutQuery(url),
      'url.scheme': protocol,
    },
  }
}
