import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HttpServer } from '../http/server.ts'
import { createHttpListener } from './listener.ts'
import { listenOn } from './listening.ts'
import { sendProblem } from './plain-answers.ts'
import { refusalOf } from './request-guard.ts'

/**
 * The front door of a process: it listens from the start, hands requests to services that come and
 * go, and closes only when the last of them has answered. A service that is not there answers 503.
 */
export interface FrontDoor extends Inside {
  readonly url: string
  mount(name: string, app: HttpServer): void
  /** Answers 503 from now on; resolves when the service's requests in flight are done. */
  unmount(name: string): Promise<void>
  /** Answers end their connections from now on, so that clients with a pool go elsewhere. */
  drain(): void
  /** Takes no new connections; resolves when the remaining ones are gone. */
  close(): Promise<void>
}

/** The services behind the door. */
export interface Inside {
  has(name: string): boolean
  /** Hands a request to a service. */
  pass(name: string, request: IncomingMessage, response: ServerResponse): void
}

export interface FrontDoorOptions {
  readonly host: string
  /** 0 takes any free one. */
  readonly port: number
  readonly requestTimeoutMs: number
  readonly maxConnections: number
  readonly allowedHosts: ReadonlySet<string> | 'any'
  readonly handle: (inside: Inside, request: IncomingMessage, response: ServerResponse) => void
}

interface Mounted {
  readonly app: HttpServer
  inFlight: number
  onIdle?: () => void
}

/** Rejects when the address is not available. */
export async function openFrontDoor(options: FrontDoorOptions): Promise<FrontDoor> {
  const services = new Map<string, Mounted>()
  const owners = new Map<ServerResponse, Mounted>()

  const inside: Inside = {
    has: (name) => services.has(name),
    pass(name, request, response) {
      const mounted = services.get(name)
      if (!mounted) {
        return sendProblem(request, response, 'SERVICE_UNAVAILABLE', { detail: `${name} is off` })
      }
      if (!mounted.app.admit(request, response)) return
      mounted.inFlight += 1
      owners.set(response, mounted)
      mounted.app.routing(request, response)
    },
  }
  const listener = createHttpListener({
    requestTimeoutMs: options.requestTimeoutMs,
    maxConnections: options.maxConnections,
    onRequest(request, response) {
      const refusal = refusalOf(request, options.allowedHosts)
      if (refusal === undefined) return options.handle(inside, request, response)
      const [code, detail] = refusal
      sendProblem(request, response, code, { detail })
    },
    onDone(response) {
      const mounted = owners.get(response)
      owners.delete(response)
      if (mounted === undefined) return
      mounted.inFlight -= 1
      if (mounted.inFlight === 0) mounted.onIdle?.()
    },
  })
  const listening = await listenOn(listener.server, options.host, options.port)

  return {
    ...inside,
    url: `http://${reachable(options.host)}:${listening.port}`,
    mount: (name, app) => void services.set(name, { app, inFlight: 0 }),
    async unmount(name) {
      const mounted = services.get(name)
      services.delete(name)
      if (!mounted || mounted.inFlight === 0) return
      await new Promise<void>((resolve) => {
        mounted.onIdle = resolve
      })
    },
    drain: listener.drain,
    async close() {
      await Promise.all([listening.close(), listener.close()])
    },
  }
}

/** The host of a URL that reaches the address from this machine: loopback where it listens everywhere. */
export function reachable(host: string): string {
  if (['0.0.0.0', '::', '*'].includes(host)) return '127.0.0.1'
  return host.includes(':') ? `[${host}]` : host
}
