import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { ProblemCode } from '../../contracts/problems.ts'
import { rawProblem, sendProblem } from './plain-responses.ts'

export interface HttpListenerOptions {
  /**
   * The time limit for each of three steps: receiving a request, preparing its response, and the client's
   * reading of the response.
   */
  readonly requestTimeoutMs: number
  /** Connections beyond this number get 429 at once. Beyond twice this number, none are accepted. */
  readonly maxConnections: number
  readonly onRequest: (request: IncomingMessage, response: ServerResponse) => void
  /** Called once for each request when its response has been sent or its connection has closed. */
  readonly onDone: (response: ServerResponse) => void
}

/**
 * An HTTP server that limits every connection in time and size, so that no client can occupy its resources.
 */
export interface HttpListener {
  readonly server: Server
  /** Makes every later response close its connection, and disconnects clients that stall, within seconds. */
  drain(): void
  /**
   * Stops accepting connections. Resolves when the existing connections are closed, after a second at most.
   */
  close(): Promise<void>
}

interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly startedMs: number
  /** The time at which a check first found that the response was being sent. */
  writingSinceMs?: number
}

/**
 * Longer than clients and proxies keep idle connections in their pools, so that they close a connection
 * first.
 */
const KEEP_ALIVE_MS = 72_000
const MAX_HEADERS_MS = 10_000
/** How much longer than other responses a response may take because of `Prefer: wait`. */
const LONGEST_WAIT_MS = 30_000
/** How long a socket stays open after this side has ended it, so that the client can still read the response. */
const LINGER_MS = 500
const CHECK_EVERY_MS = 1_000
/** How long the last responses may take when the server closes. */
const LAST_RESPONSES_MS = 1_000
/**
 * While the process drains, how long a client may take to send the rest of its request or read the rest of a
 * response.
 */
const DRAIN_CLIENT_MS = 2_000
/** The total time that draining may take. */
const DRAIN_ALL_MS = 16_000
/** How many requests may be in flight on one connection. */
const MAX_PIPELINED = 32
/** How many bytes of responses clients may leave unread, over all connections. */
const MAX_UNREAD_BYTES = 64 * 1_048_576

export function createHttpListener(options: HttpListenerOptions): HttpListener {
  const { requestTimeoutMs, maxConnections } = options
  const connections = new Map<Socket, Set<Exchange>>()
  let drainingSince: number | undefined

  const server = createServer(
    {
      requestTimeout: requestTimeoutMs,
      headersTimeout: Math.min(requestTimeoutMs, MAX_HEADERS_MS),
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: CHECK_EVERY_MS,
      // Node would respond without a body. The request guard checks the header instead, and responds with a
      // problem.
      requireHostHeader: false,
    },
    onRequest,
  )
  server.maxConnections = 2 * maxConnections
  server.on('connection', onConnection)
  server.on('clientError', onClientError)
  // A server may ignore expectations other than 100-continue (RFC 9110). Requests to upgrade the protocol are
  // ignored as well.
  server.on('checkExpectation', onRequest)
  server.on('connect', (_request, socket: Socket) => {
    const detail = 'this server is not a proxy'
    endWith(socket, rawProblem('METHOD_NOT_ALLOWED', detail, { allow: 'GET, HEAD' }))
  })
  const checks = setInterval(check, CHECK_EVERY_MS).unref()
  server.once('close', () => clearInterval(checks))

  function onConnection(socket: Socket): void {
    connections.set(socket, new Set())
    // When the socket closes, responses queued behind the current one emit no 'close' event.
    socket.once('close', () => {
      for (const exchange of connections.get(socket) ?? []) finish(socket, exchange)
      connections.delete(socket)
    })
    if (connections.size <= maxConnections) return
    endWith(socket, rawProblem('TOO_MANY_REQUESTS', 'there are too many connections'))
  }

  function onRequest(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request
    const exchanges = connections.get(socket)
    if (exchanges === undefined || socket.writableEnded) return
    const exchange = { request, response, startedMs: performance.now() }
    exchanges.add(exchange)
    response.once('close', () => finish(socket, exchange))
    if (drainingSince !== undefined) response.setHeader('connection', 'close')
    if (exchanges.size > MAX_PIPELINED) {
      const detail = `a connection may have at most ${MAX_PIPELINED} requests in flight`
      return sendProblem(request, response, 'TOO_MANY_REQUESTS', { detail })
    }
    options.onRequest(request, response)
  }

  function finish(socket: Socket, exchange: Exchange): void {
    if (connections.get(socket)?.delete(exchange)) options.onDone(exchange.response)
  }

  function onClientError(error: Error & { code?: string }, socket: Socket): void {
    const exchanges = [...(connections.get(socket) ?? [])]
    const isResponding = exchanges.length > 1 || exchanges[0]?.response.headersSent === true
    if (!socket.writable || isResponding) socket.destroy()
    else endWith(socket, rawProblem(...problemOf(error.code)))
  }

  /** Disconnects clients that take too long or leave too many bytes unread. */
  function check(): void {
    const now = performance.now()
    // At the limit, idle connections are closed to make room for new ones.
    if (connections.size >= maxConnections) server.closeIdleConnections()
    const unread: { socket: Socket; bytes: number }[] = []
    for (const [socket, exchanges] of connections) {
      let bytes = 0
      for (const exchange of exchanges) {
        bytes += exchange.response.writableLength
        if (isStalled(exchange, now)) socket.destroy()
        else rejectIfLate(exchange, now - requestTimeoutMs - LONGEST_WAIT_MS)
      }
      unread.push({ socket, bytes })
    }
    limitUnread(unread)
  }

  function isStalled(exchange: Exchange, now: number): boolean {
    const { request, response } = exchange
    const drainedFor = drainingSince === undefined ? 0 : now - drainingSince
    if (drainedFor > DRAIN_ALL_MS) return true
    if (!request.complete && drainedFor > DRAIN_CLIENT_MS) return true
    // A response without a socket waits for earlier responses on its connection, not for the client.
    if (!response.headersSent || response.socket === null) return false
    exchange.writingSinceMs ??= now
    const limit = drainingSince === undefined ? requestTimeoutMs : DRAIN_CLIENT_MS
    return now - exchange.writingSinceMs > limit
  }

  return {
    server,
    drain() {
      drainingSince ??= performance.now()
    },
    close: () =>
      new Promise((resolve) => {
        const limit = setTimeout(() => server.closeAllConnections(), LAST_RESPONSES_MS)
        server.close(() => {
          clearTimeout(limit)
          resolve()
        })
        server.closeIdleConnections()
      }),
  }
}

function rejectIfLate({ request, response, startedMs }: Exchange, startedAfterMs: number): void {
  if (response.headersSent || startedMs > startedAfterMs) return
  const detail = 'the response took too long; the request may still take effect'
  sendProblem(request, response, 'SERVICE_UNAVAILABLE', { detail })
}

/** If more than MAX_UNREAD_BYTES are unread in all, disconnects the clients with the most unread bytes. */
function limitUnread(clients: { readonly socket: Socket; readonly bytes: number }[]): void {
  let total = clients.reduce((sum, { bytes }) => sum + bytes, 0)
  for (const { socket, bytes } of clients.sort((a, b) => b.bytes - a.bytes)) {
    if (total <= MAX_UNREAD_BYTES) return
    socket.destroy()
    total -= bytes
  }
}

/** Sends a final response and closes the socket, even if the client never closes its side. */
function endWith(socket: Socket, text: string): void {
  socket.on('error', () => socket.destroy())
  socket.end(text)
  setTimeout(() => socket.destroy(), LINGER_MS).unref()
}

function problemOf(code: string | undefined): [ProblemCode, string] {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return ['REQUEST_TIMEOUT', 'the request did not arrive in time']
  }
  if (code === 'HPE_HEADER_OVERFLOW') {
    return ['HEADERS_TOO_LARGE', 'the URL and the headers may have at most 16 KB together']
  }
  if (code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW') {
    return ['BODY_TOO_LARGE', 'the chunk extensions of the body are too large']
  }
  return ['VALIDATION_FAILED', 'the request is not valid HTTP']
}
