import { Agent, request } from 'undici'
import type { ServiceName } from '../../contracts/access.ts'
import { traceContextOf } from '../../contracts/trace-context.ts'
import type { Tracer } from '../telemetry/tracing.ts'

/** One HTTP call. The URL is absolute. The body is text, and the headers name its content type. */
export interface HttpCall {
  /** The service that is called. */
  readonly target: ServiceName
  readonly method: 'POST' | 'GET' | 'DELETE'
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

/** A response with any status. */
export interface HttpResponse {
  readonly status: number
  readonly body: string
}

/**
 * Resolves with any complete response. Rejects with HttpUnreachable if no response arrives in time; the call
 * may or may not have taken effect.
 */
export type HttpClient = (call: HttpCall, timeoutMs: number) => Promise<HttpResponse>

/**
 * The header with the number of milliseconds that the caller will wait for the response. Later work would be
 * wasted.
 */
export const TIMEOUT_HEADER = 'x-request-timeout-ms'

const MAX_CONNECTIONS_PER_ORIGIN = 128
const MAX_RESPONSE_BYTES = 1_048_576

/**
 * Creates a client with pooled connections. The timeout of a call covers the wait for a connection, connecting, and
 * the response.
 */
export function createHttpClient(): { call: HttpClient; close(): Promise<void> } {
  const agent = new Agent({
    connections: MAX_CONNECTIONS_PER_ORIGIN,
    maxResponseSize: MAX_RESPONSE_BYTES,
    allowH2: false,
    // Undici's own time limits are off, because the signal of each call limits its time.
    headersTimeout: 0,
    bodyTimeout: 0,
  })

  async function call({ method, url, headers, body }: HttpCall, timeoutMs: number) {
    // Not AbortSignal.timeout, which costs more because it cannot be canceled after the response.
    const timeout = new AbortController()
    const fail = () => timeout.abort(new Error(`no response in ${timeoutMs} ms`))
    const timer = setTimeout(fail, timeoutMs)
    try {
      const { signal } = timeout
      const response = await request(url, {
        dispatcher: agent,
        method,
        body,
        signal,
        headers: { ...headers, [TIMEOUT_HEADER]: String(Math.ceil(timeoutMs)) },
      })
      return { status: response.statusCode, body: await response.body.text() }
    } catch (error) {
      throw new HttpUnreachable(`${method} ${withoutQuery(url)}: ${messageOf(error)}`, error)
    } finally {
      clearTimeout(timer)
    }
  }

  return { call, close: () => agent.close() }
}

/**
 * Wraps a client so that each call has a span, in the trace that its headers name. The receiver of the call
 * continues that span.
 */
export function tracedCalls(http: HttpClient, tracer: Tracer): HttpClient {
  if (!tracer.isOn) return http
  return async (call, timeoutMs) => {
    const { method, headers } = call
    const url = new URL(call.url)
    const span = tracer.begin({
      name: method,
      kind: 'client',
      parent: traceContextOf(headers),
      attributes: {
        'http.request.method': method,
        'server.address': url.hostname,
        'server.port': Number(url.port) || (url.protocol === 'https:' ? 443 : 80),
        'url.full': call.url,
      },
    })
    try {
      const response = await http({ ...call, headers: { ...headers, ...span.context } }, timeoutMs)
      span.end({
        attributes: { 'http.response.status_code': response.status },
        error: response.status >= 400 ? String(response.status) : undefined,
      })
      return response
    } catch (error) {
      span.end({ error })
      throw error
    }
  }
}

export class HttpUnreachable extends Error {
  constructor(message: string, cause: unknown) {
    super(message, { cause })
    this.name = 'HttpUnreachable'
  }
}

function withoutQuery(url: string): string {
  return url.split('?', 1)[0]!
}

/** If several addresses were tried, a failed connect is an AggregateError, whose own message is empty. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.message || (error as { code?: string }).code || error.name
}
