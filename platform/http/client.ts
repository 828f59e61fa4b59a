import { Agent, request } from 'undici'
import { traceContextOf } from '../../contracts/trace-context.ts'
import type { Tracer } from '../telemetry/tracing.ts'

/** One HTTP call. The URL is absolute; the body is text whose content type the headers name. */
export interface HttpCall {
  /** The service that is called. */
  readonly target: 'order' | 'billing' | 'notification'
  readonly method: 'POST' | 'GET' | 'DELETE'
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

/** Whatever the other side answered, whatever its status. */
export interface HttpResponse {
  readonly status: number
  readonly body: string
}

/**
 * Resolves with any whole answer. Rejects with HttpUnreachable when none came in time: the call may
 * or may not have taken effect.
 */
export type HttpClient = (call: HttpCall, timeoutMs: number) => Promise<HttpResponse>

/** Milliseconds for which the caller will go on waiting for the answer; later work would be wasted. */
export const TIMEOUT_HEADER = 'x-request-timeout-ms'

const MAX_CONNECTIONS_PER_ORIGIN = 128
const MAX_ANSWER_BYTES = 1_048_576

/** A client with pooled connections. The time-out covers the wait for one, connect and the answer. */
export function createHttpClient(): { call: HttpClient; close(): Promise<void> } {
  const agent = new Agent({
    connections: MAX_CONNECTIONS_PER_ORIGIN,
    maxResponseSize: MAX_ANSWER_BYTES,
    allowH2: false,
    // The signal of each call is the only clock.
    headersTimeout: 0,
    bodyTimeout: 0,
  })

  async function call({ method, url, headers, body }: HttpCall, timeoutMs: number) {
    // AbortSignal.timeout, which nothing can end early, is dearer.
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs)
    try {
      const { signal } = late
      const answer = await request(url, {
        ...{ dispatcher: agent, method, body, signal },
        headers: { ...headers, [TIMEOUT_HEADER]: String(Math.ceil(timeoutMs)) },
      })
      return { status: answer.statusCode, body: await answer.body.text() }
    } catch (error) {
      throw new HttpUnreachable(`${method} ${withoutQuery(url)}: ${sentence(error)}`, error)
    } finally {
      clearTimeout(timer)
    }
  }

  return { call, close: () => agent.close() }
}

/**
 * The same client, with a span for each call, in the trace that its headers continue; the other side
 * continues the span.
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
      const answer = await http({ ...call, headers: { ...headers, ...span.context } }, timeoutMs)
      span.end({
        attributes: { 'http.response.status_code': answer.status },
        error: answer.status >= 400 ? String(answer.status) : undefined,
      })
      return answer
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

/** A failure to connect on several addresses is an AggregateError, whose own message is empty. */
function sentence(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.message || (error as { code?: string }).code || error.name
}
