import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { asyncApiDocument } from '../../contracts/asyncapi.ts'
import { asyncApiPage } from '../../contracts/asyncapi-page.ts'
import { PROBLEMS, type ProblemCode, problemBody } from '../../contracts/problems.ts'
import type { HttpServer } from '../../platform/http-server.ts'
import { isLoopback } from '../../platform/http-server.ts'
import type { Log } from '../../platform/runtime.ts'
import type { AllInOneConfig } from './config.ts'
import { isSwitchName, type Lab } from './lab.ts'

/**
 * The gateway of the all-in-one program: one address that hands each request to the service whose
 * path it has, rewriting nothing, as nginx does elsewhere. What is not running answers 503.
 */
export interface Gateway {
  readonly url: string
  mount(name: ServiceName, app: HttpServer): void
  /** Answers 503 from now on; resolves when the requests that the service has are answered. */
  unmount(name: ServiceName): Promise<void>
  openLab(lab: Lab): void
  /** From now on an answer ends its connection, so that clients who keep theirs go elsewhere. */
  drain(): void
  /** Takes no new connections; resolves when those that are left have been answered. */
  close(): Promise<void>
}

type ServiceName = 'order' | 'billing' | 'notification'

const SERVICES: Readonly<Record<string, ServiceName>> = {
  orders: 'order',
  billing: 'billing',
  notification: 'notification',
}

interface Mounted {
  readonly app: HttpServer
  busy: number
  onIdle?: () => void
}

export async function openGateway(config: AllInOneConfig, log: Log): Promise<Gateway> {
  const services = new Map<ServiceName, Mounted>()
  const basePath = config.BASE_PATH.replace(/\/+$/, '')
  let lab: Lab | undefined
  let draining = false

  function handle(request: IncomingMessage, response: ServerResponse): void {
    if (draining) response.setHeader('connection', 'close')
    const path = pathOf(request.url ?? '/', basePath)
    const [, first = '', second = '', third = '', fourth = ''] = path.split('/')
    const service = SERVICES[first]
    if (service) return toService(service, request, response)
    if (path === '/asyncapi.json') return sendJson(response, 200, asyncApiDocument())
    if (path === '/asyncapi') return sendPage(response, asyncApiPage(`${basePath}/asyncapi.json`))
    if (path === '/') return sendJson(response, 200, INDEX)
    if (first === 'lab' && second === 'services' && config.LAB && lab) {
      void toLab(lab, request, response, third, fourth)
      return
    }
    sendProblem(response, 'ROUTE_NOT_FOUND')
  }

  function toService(name: ServiceName, request: IncomingMessage, response: ServerResponse): void {
    const mounted = services.get(name)
    if (mounted === undefined) return sendProblem(response, 'SERVICE_UNAVAILABLE', `${name} is off`)
    mounted.busy += 1
    response.once('close', () => {
      mounted.busy -= 1
      if (mounted.busy === 0) mounted.onIdle?.()
    })
    mounted.app.routing(request, response)
  }

  const server = createServer({ requestTimeout: config.REQUEST_TIMEOUT_MS }, handle)
  server.keepAliveTimeout = KEEP_ALIVE_MS
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(config.PORT, config.HOST, resolve)
  })
  const { port } = server.address() as AddressInfo
  const host = ['0.0.0.0', '::', '*'].includes(config.HOST) ? '127.0.0.1' : config.HOST

  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    mount: (name, app) => void services.set(name, { app, busy: 0 }),
    async unmount(name) {
      const mounted = services.get(name)
      services.delete(name)
      if (!mounted || mounted.busy === 0) return
      log.info({ service: name, requests: mounted.busy }, 'waiting for running requests')
      await new Promise<void>((resolve) => {
        mounted.onIdle = resolve
      })
    },
    openLab(switches) {
      lab = switches
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

/** When all services are off, what is still on its way is answered at once, or will never arrive. */
const LAST_ANSWERS_MS = 1_000

/** Longer than the pools of clients keep a connection, so that they close it first. */
const KEEP_ALIVE_MS = 72_000

const INDEX = {
  name: 'Trifold',
  services: Object.keys(SERVICES).map((path) => ({
    health: `/${path}/health`,
    ready: `/${path}/actuator/health`,
    docs: `/${path}/docs`,
    openapi: `/${path}/openapi.json`,
    metrics: `/${path}/actuator/prometheus`,
  })),
  events: { docs: '/asyncapi', asyncapi: '/asyncapi.json' },
}

function pathOf(url: string, basePath: string): string {
  const path = url.split(/[?#]/, 1)[0] as string
  const bare = path.startsWith(`${basePath}/`) ? path.slice(basePath.length) : path
  return bare.length > 1 ? bare.replace(/\/+$/, '') : '/'
}

async function toLab(
  lab: Lab,
  request: IncomingMessage,
  response: ServerResponse,
  name: string,
  action: string,
): Promise<void> {
  if (!isLoopback(request)) return sendProblem(response, 'LOOPBACK_ONLY')
  const states = () =>
    Object.fromEntries(Object.entries(lab).map(([one, { running }]) => [one, running()]))
  if (request.method === 'GET' && name === '') return sendJson(response, 200, states())
  const known = isSwitchName(name) && (action === 'start' || action === 'stop')
  if (request.method !== 'POST' || !known) return sendProblem(response, 'ROUTE_NOT_FOUND')
  try {
    await lab[name][action]()
    sendJson(response, 200, states())
  } catch (error) {
    sendProblem(response, 'INTERNAL', (error as Error).message)
  }
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json', ...SECURITY })
  response.end(JSON.stringify(body))
}

function sendPage(response: ServerResponse, page: string): void {
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', ...SECURITY })
  response.end(page)
}

function sendProblem(response: ServerResponse, code: ProblemCode, detail?: string): void {
  const { status, retryable } = PROBLEMS[code]
  response.writeHead(status, {
    'content-type': 'application/problem+json',
    ...(retryable && { 'retry-after': '1' }),
    ...SECURITY,
  })
  response.end(JSON.stringify(problemBody(code, detail ? { detail } : {})))
}

const SECURITY = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
}
