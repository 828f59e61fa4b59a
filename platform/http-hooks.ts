import type { FastifyReply, FastifyRequest } from 'fastify'
import { Fault } from '../contracts/problems.ts'
import type { HttpServer } from './http-validation.ts'
import type { PlainSchema } from './schema-text.ts'
import type { Telemetry } from './telemetry.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** W3C trace context: the caller's, or one that begins here. */
    traceparent: string
  }
  interface FastifyContextConfig {
    /** Its requests are logged at debug only: probes and scrapes come for ever. */
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
export function addRequestHooks(app: HttpServer, telemetry: Telemetry): void {
  let isClosing = false
  app.addHook('preClose', async () => {
    isClosing = true
  })
  app.decorateRequest('traceparent', '')

  // With callbacks, not promises: these run for every request.
  app.addHook('onRequest', (request, reply, done) => {
    const { traceparent } = request.headers
    request.traceparent = isTraceparent(traceparent) ? traceparent : newTraceparent()
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
    const { method, traceparent } = request
    const route = request.routeOptions.url ?? 'unmatched'
    const status = reply.statusCode
    const durationMs = Math.round(reply.elapsedTime * 1000) / 1000
    telemetry.count('trifold_http_requests_total', { method, route, status: String(status) })
    telemetry.observe('trifold_http_request_seconds', durationMs / 1000, { method, route })
    const level = request.routeOptions.config.quiet ? 'debug' : 'info'
    request.log[level]({ method, route, status, durationMs, traceparent }, 'a request was answered')
    done()
  })
}

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

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

/** The caller's id of a request, where it is fit for headers and log lines; otherwise a new one. */
export function requestId(header: unknown): string {
  const isSane = typeof header === 'string' && /^[\w.-]{1,128}$/.test(header)
  return isSane ? header : crypto.randomUUID()
}

function isTraceparent(header: unknown): header is string {
  return typeof header === 'string' && TRACEPARENT.test(header)
}

/** Digits of random UUIDs, which Node makes from a pool: several times faster than asking for bytes. */
function newTraceparent(): string {
  const trace = crypto.randomUUID().replaceAll('-', '')
  const span = crypto.randomUUID().replaceAll('-', '').slice(16)
  return `00-${trace}-${span}-01`
}
