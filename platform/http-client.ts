import { Agent, request } from 'undici'

/** One HTTP call. The URL is absolute; the body is text whose content type the headers name. */
export interface HttpCall {
  readonly method: 'POST' | 'GET' | 'DELETE'
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

/** Whatever the other side answered, whatever its status. */
export interface HttpAnswer {
  readonly status: number
  readonly body: string
}

/**
 * Resolves with any whole answer. Rejects with HttpUnreachable when none came in time: the call may
 * or may not have taken effect.
 */
export type HttpClient = (call: HttpCall, timeoutMs: number) => Promise<HttpAnswer>

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
    try {
      const signal = AbortSignal.timeout(timeoutMs)
      const answer = await request(url, { dispatcher: agent, method, headers, body, signal })
      return { status: answer.statusCode, body: await answer.body.text() }
    } catch (error) {
      throw new HttpUnreachable(`${method} ${withoutQuery(url)}: ${sentence(error)}`, error)
    }
  }

  return { call, close: () => agent.close() }
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
