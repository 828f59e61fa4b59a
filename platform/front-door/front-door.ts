import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HttpServer } from '../http/server.ts'
import { createHttpListener } from './listener.ts'
import { listenOn } from './listening.ts'
import { sendProblem } from './plain-responses.ts'
import { rejectionOf } from './request-guard.ts'

/**
 * The front door of a process. It listens from the start, hands requests to the services that are
 * mounted at the moment, and closes only when all requests have been answered. A request for a service
 * that is not mounted gets 503.
 */
export interface FrontDoor extends MountedServices {
  readonly url: string
  mount(name: string, app: HttpServer): void
  /** Responds with 503 to new requests for the service; resolves when its requests in flight are done. */
  unmount(name: string): Promise<void>
  /** Makes every later response close its connection, so that clients with a pool connect elsewhere. */
  drain(): void
  /** Accepts no new connections; resolves when the existing ones are closed. */
  close(): Promise<void>
}

/** The services that are mounted in the front door. */
export interface MountedServices {
  has(name: string): boolean
  /** Hands a request to a service. */
  pass(name: string, request: IncomingMessage, response: ServerResponse): void
}

export interface FrontDoorOptions {
  readonly host: string
  /** 0 means any free port. */
  readonly port: number
  readonly requestTimeoutMs: number
  readonly maxConnections: number
  readonly allowedHosts: ReadonlySet<string> | 'any'
  readonly handle: (
    services: MountedServices,
    request: IncomingMessage,
    response: ServerResponse,
  ) => void
}

interface Mount {
  readonly app: HttpServer
  inFlight: number
  onIdle?: () => void
}

/** Rejects if the address is not available. */
export async function openFrontDoor(options: FrontDoorOptions): Promise<FrontDoor> {
  const mounts = new Map<string, Mount>()
  const mountOf = new Map<ServerResponse, Mount>()

  const services: MountedServices = {
    has: (name) => mounts.has(name),
    pass(name, request, response) {
      const mount = mounts.get(name)
      if (!mount) {
        return sendProblem(request, response, 'SERVICE_UNAVAILABLE', {
          detail: `${name} is not running`,
        })
      }
      if (!mount.app.admit(request, response)) return
      mount.inFlight += 1
      mountOf.set(response, mount)
      mount.app.routing(request, response)
    },
  }
  const listener = createHttpListener({
    requestTimeoutMs: options.requestTimeoutMs,
    maxConnections: options.maxConnections,
    onRequest(request, response) {
      const rejection = rejectionOf(request, options.allowedHosts)
      if (rejection === undefined) return options.handle(services, request, response)
      const [code, detail] = rejection
      sendProblem(request, response, code, { detail })
    },
    onDone(response) {
      const mount = mountOf.get(response)
      mountOf.delete(response)
      if (mount === undefined) return
      mount.inFlight -= 1
      if (mount.inFlight === 0) mount.onIdle?.()
    },
  })
  const listening = await listenOn(listener.server, options.host, options.port)

  return {
    ...services,
    url: `http://${reachable(options.host)}:${listening.port}`,
    mount: (name, app) => void mounts.set(name, { app, inFlight: 0 }),
    async unmount(name) {
      const mount = mounts.get(name)
      mounts.delete(name)
      if (!mount || mount.inFlight === 0) return
      await new Promise<void>((resolve) => {
        mount.onIdle = resolve
      })
    },
    drain: listener.drain,
    async close() {
      await Promise.all([listening.close(), listener.close()])
    },
  }
}

/** The host for a URL that reaches the address from this machine; loopback if it listens on all addresses. */
export function reachable(host: string): string {
  if (['0.0.0.0', '::', '*'].includes(host)) return '127.0.0.1'
  return host.includes(':') ? `[${host}]` : host
}
