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
    /** What follows from the request continues this: its span, or what the caller sent, if any. */
    trace: TraceContext
    span: Span | undefined
  }
  interface FastifyContextConfig {
    /** Its requests have no span and are logged at debug only: probes and scrapes never end. */
    quiet?: boolean
  }
}

/**
 * What keeps a browser from taking data for a page. Fixed, because a policy that is put together for
 * each answer costs more than the rest of a request; the pages have one of their own.
 */
export const DATA_HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
}

/**
 * What happens to every request: its id and trace context come in, its id goes out, and its answer
 * is counted, timed and logged.
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

  // With callbacks, not promises: these run for every request.
  app.addHook('onRequest', (request, reply, done) => {
    const caller = traceContextOf(request.headers)
    const isTraced = tracer.isOn && !request.routeOptions.config.quiet
    request.span = isTraced
      ? tracer.begin({ ...spanOf(request), ...continuing(caller, isTrusted(request)) })
      : undefined
    request.trace = request.span?.context ?? caller
    if (request.trace.traceparent) request.log = request.log.child(traceIds(request.trace))
    reply.header('x-request-id', request.id).headers(DATA_HEADERS)
    // Running requests are finished; those that come late on an open connection go elsewhere.
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
      'a request was answered',
    )
    request.span?.end({
      attributes: { 'http.response.status_code': status },
      error: status >= 500 ? String(status) : undefined,
    })
    done()
  })
}

/**
 * A line for each request costs more than the rest of its logging together, and proxies keep access logs.
 * So at info only requests that failed or were slow are logged.
 */
function levelOf(request: FastifyRequest, status: number, durationMs: number): 'debug' | 'info' {
  const isNotable = status >= 500 || durationMs >= SLOW_MS
  return isNotable && !request.routeOptions.config.quiet ? 'info' : 'debug'
}

const SLOW_MS = 1_000

/**
 * Whether this is text that the route's schema promises as a JSON string: left to itself, Fastify
 * sends it as plain text, without quotes. Text that has a type already is finished JSON.
 */
function isBareText(payload: unknown, request: FastifyRequest, reply: FastifyReply): boolean {
  if (typeof payload !== 'string') return false
  if (reply.getHeader('content-type') !== 'text/plain; charset=utf-8') return false
  const answers = request.routeOptions.schema?.response as Record<string, PlainSchema> | undefined
  return answers?.[reply.statusCode]?.type === 'string'
}

/** The caller's id of a request, where it is fit for headers and log lines; otherwise a new one. */
export function requestId(header: unknown): string {
  const isSane = typeof header === 'string' && /^[\w.-]{1,128}$/.test(header)
  return isSane ? header : crypto.randomUUID()
}

/**
 * A caller's context decides whether a trace is sampled, so only a trusted caller's is continued. Any
 * other's is linked from a trace of our own.
 */
function continuing(caller: TraceContext, isTrusted: boolean): Pick<SpanStart, 'parent' | 'links'> {
  if (isTrusted) return { parent: caller }
  return { parent: {}, ...(caller.traceparent && { links: [caller] }) }
}

/** By OpenTelemetry's conventions for HTTP servers. The name has the route, not the path: few names. */
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
