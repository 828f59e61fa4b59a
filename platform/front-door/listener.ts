import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { ProblemCode } from '../../contracts/problems.ts'
import { rawProblem, sendProblem } from './plain-responses.ts'

export interface HttpListenerOptions {
  /** How long a request may take to arrive, its answer to be ready, and the client to read that. */
  readonly requestTimeoutMs: number
  /** More are answered 429 at once; twice as many are not accepted at all. */
  readonly maxConnections: number
  readonly onRequest: (request: IncomingMessage, response: ServerResponse) => void
  /** Called once for each request when its connection is done with it, answered or not. */
  readonly onDone: (response: ServerResponse) => void
}

/** An HTTP server that no client can hold on to: every connection has its limits in time and size. */
export interface HttpListener {
  readonly server: Server
  /** Answers end their connections from now on, and clients that stall are cut off within seconds. */
  drain(): void
  /** Accepts no new connections; resolves when the remaining ones are gone, a second at most. */
  close(): Promise<void>
}

interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly beganAt: number
  /** When a check first found the answer on its way. */
  writingSince?: number
}

/** Longer than the pools of clients and proxies keep a connection, so that they close it first. */
const KEEP_ALIVE_MS = 72_000
const MAX_HEADERS_MS = 10_000
/** What `Prefer: wait` may add to the time for an answer. */
const LONGEST_WAIT_MS = 30_000
/** How long a socket that was ended may linger, so that the client reads the answer. */
const LINGER_MS = 500
const CHECK_EVERY_MS = 1_000
const LAST_ANSWERS_MS = 1_000
/** While draining: for a client to send or read the rest, and for everything. */
const DRAIN_CLIENT_MS = 2_000
const DRAIN_ALL_MS = 16_000
/** Requests in flight on one connection. */
const MAX_PIPELINED = 32
/** Answers that clients have not read yet, on all connections. */
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
      // Node would answer without a body; the guard checks it and answers with a problem.
      requireHostHeader: false,
    },
    onRequest,
  )
  server.maxConnections = 2 * maxConnections
  server.on('connection', onConnection)
  server.on('clientError', onClientError)
  // Expectations other than 100-continue may be ignored (RFC 9110), and so are upgrades.
  server.on('checkExpectation', onRequest)
  server.on('connect', (_request, socket: Socket) => {
    const detail = 'this is not a proxy'
    endWith(socket, rawProblem('METHOD_NOT_ALLOWED', detail, { allow: 'GET, HEAD' }))
  })
  const checks = setInterval(check, CHECK_EVERY_MS).unref()
  server.once('close', () => clearInterval(checks))

  function onConnection(socket: Socket): void {
    connections.set(socket, new Set())
    // The responses queued behind the current one have no 'close' event of their own.
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
    const exchange = { request, response, beganAt: performance.now() }
    exchanges.add(exchange)
    response.once('close', () => finish(socket, exchange))
    if (drainingSince !== undefined) response.setHeader('connection', 'close')
    if (exchanges.size > MAX_PIPELINED) {
      const detail = `a connection may have ${MAX_PIPELINED} requests in flight`
      return sendProblem(request, response, 'TOO_MANY_REQUESTS', { detail })
    }
    options.onRequest(request, response)
  }

  function finish(socket: Socket, exchange: Exchange): void {
    if (connections.get(socket)?.delete(exchange)) options.onDone(exchange.response)
  }

  function onClientError(error: Error & { code?: string }, socket: Socket): void {
    const exchanges = [...(connections.get(socket) ?? [])]
    const isAnswering = exchanges.length > 1 || exchanges[0]?.response.headersSent === true
    if (!socket.writable || isAnswering) socket.destroy()
    else endWith(socket, rawProblem(...problemOf(error.code)))
  }

  /** Cuts off clients that take too long, and the largest of those that do not read. */
  function check(): void {
    const now = performance.now()
    // Idle connections give way to new ones.
    if (connections.size >= maxConnections) server.closeIdleConnections()
    const unread: { socket: Socket; bytes: number }[] = []
    for (const [socket, exchanges] of connections) {
      let bytes = 0
      for (const exchange of exchanges) {
        bytes += exchange.response.writableLength
        if (isStalled(exchange, now)) socket.destroy()
        else answerIfLate(exchange, now)
      }
      unread.push({ socket, bytes })
    }
    let total = unread.reduce((sum, { bytes }) => sum + bytes, 0)
    for (const { socket, bytes } of unread.sort((a, b) => b.bytes - a.bytes)) {
      if (total <= MAX_UNREAD_BYTES) return
      socket.destroy()
      total -= bytes
    }
  }

  function isStalled(exchange: Exchange, now: number): boolean {
    const { request, response } = exchange
    const drainedFor = drainingSince === undefined ? 0 : now - drainingSince
    if (drainedFor > DRAIN_ALL_MS) return true
    if (!request.complete && drainedFor > DRAIN_CLIENT_MS) return true
    // An answer without a socket waits for the answers before it, not for the client.
    if (!response.headersSent || response.socket === null) return false
    exchange.writingSince ??= now
    const limit = drainingSince === undefined ? requestTimeoutMs : DRAIN_CLIENT_MS
    return now - exchange.writingSince > limit
  }

  function answerIfLate({ request, response, beganAt }: Exchange, now: number): void {
    if (response.headersSent || now - beganAt < requestTimeoutMs + LONGEST_WAIT_MS) return
    const detail = 'no answer was ready in time; the request may still take effect'
    sendProblem(request, response, 'SERVICE_UNAVAILABLE', { detail })
  }

  return {
    server,
    drain() {
      drainingSince ??= performance.now()
    },
    close: () =>
      new Promise((resolve) => {
        const limit = setTimeout(() => server.closeAllConnections(), LAST_ANSWERS_MS)
        server.close(() => {
          clearTimeout(limit)
          resolve()
        })
        server.closeIdleConnections()
      }),
  }
}

/** A socket that was only ended stays until the client closes its side, which it need not do. */
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
    return ['HEADERS_TOO_LARGE', 'the URL and the headers may have 16 KB together']
  }
  if (code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW') {
    return ['BODY_TOO_LARGE', 'the chunk extensions of the body are too large']
  }
  return ['VALIDATION_FAILED', 'this is not valid HTTP']
}
