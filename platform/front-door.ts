import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { asyncApiDocument } from '../contracts/asyncapi.ts'
import { asyncApiPage } from '../contracts/asyncapi-page.ts'
import { PROBLEMS, type ProblemCode, problemBody } from '../contracts/problems.ts'
import type { HttpServer } from './http-server.ts'

/**
 * The door of a process: it listens from the first moment on, hands requests to services that come
 * and go, and closes only when the last of them has answered. Whoever is not there answers 503.
 */
export interface FrontDoor extends Inside {
  readonly url: string
  mount(name: string, app: HttpServer): void
  /** Answers 503 from now on; resolves when the requests that the service has are answered. */
  unmount(name: string): Promise<void>
  /** From now on an answer ends its connection, so that clients who keep theirs go elsewhere. */
  drain(): void
  /** Takes no new connections; resolves when those that are left have been answered. */
  close(): Promise<void>
}

/** What is behind the door. */
export interface Inside {
  has(name: string): boolean
  /** Gives a request to a service. */
  pass(name: string, request: IncomingMessage, response: ServerResponse): void
}

export interface FrontDoorOptions {
  readonly host: string
  /** 0 takes any free one. */
  readonly port: number
  readonly requestTimeoutMs: number
  readonly handle: (inside: Inside, request: IncomingMessage, response: ServerResponse) => void
}

interface Mounted {
  readonly app: HttpServer
  busy: number
  onIdle?: () => void
}

/** When all services are off, what is still on its way is answered at once, or will never arrive. */
const LAST_ANSWERS_MS = 1_000

/** Longer than the pools of clients keep a connection, so that they close it first. */
const KEEP_ALIVE_MS = 72_000

/** Rejects when the address cannot be had. */
export async function openFrontDoor(options: FrontDoorOptions): Promise<FrontDoor> {
  const services = new Map<string, Mounted>()
  let draining = false

  const inside: Inside = {
    has: (name) => services.has(name),
    pass(name, request, response) {
      const mounted = services.get(name)
      if (!mounted) return sendProblem(response, 'SERVICE_UNAVAILABLE', `${name} is off`)
      mounted.busy += 1
      response.once('close', () => {
        mounted.busy -= 1
        if (mounted.busy === 0) mounted.onIdle?.()
      })
      mounted.app.routing(request, response)
    },
  }
  const server = createServer({ requestTimeout: options.requestTimeoutMs }, (request, response) => {
    if (draining) response.setHeader('connection', 'close')
    options.handle(inside, request, response)
  })
  server.keepAliveTimeout = KEEP_ALIVE_MS
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, resolve)
  })
  const { port } = server.address() as AddressInfo

  return {
    ...inside,
    url: `http://${reachable(options.host)}:${port}`,
    mount: (name, app) => void services.set(name, { app, busy: 0 }),
    async unmount(name) {
      const mounted = services.get(name)
      services.delete(name)
      if (!mounted || mounted.busy === 0) return
      await new Promise<void>((resolve) => {
        mounted.onIdle = resolve
      })
    },
    drain() {
      draining = true
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

/** An address that listens everywhere is reached here by loopback. */
function reachable(host: string): string {
  if (['0.0.0.0', '::', '*'].includes(host)) return '127.0.0.1'
  return host.includes(':') ? `[${host}]` : host
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json', ...SECURITY })
  response.end(JSON.stringify(body))
}

function sendPage(response: ServerResponse, page: string): void {
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', ...SECURITY })
  response.end(page)
}

export function sendProblem(response: ServerResponse, code: ProblemCode, detail?: string): void {
  const { status, retryable } = PROBLEMS[code]
  response.writeHead(status, {
    'content-type': 'application/problem+json',
    ...(retryable && { 'retry-after': '1' }),
    ...SECURITY,
  })
  response.end(JSON.stringify(problemBody(code, detail ? { detail } : {})))
}

/** Answers who asks for the contract of the events; returns false where something else is asked for. */
export function sendAsyncApi(response: ServerResponse, path: string, basePath: string): boolean {
  if (path === '/asyncapi.json') sendJson(response, 200, asyncApiDocument())
  else if (path === '/asyncapi') sendPage(response, asyncApiPage(`${basePath}/asyncapi.json`))
  else return false
  return true
}

const SECURITY = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
}
