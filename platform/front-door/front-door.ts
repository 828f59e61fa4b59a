import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HttpServer } from '../http/server.ts'
import { createHttpListener } from './listener.ts'
import { listenOn } from './listening.ts'
import { sendProblem } from './plain-responses.ts'
import { rejectionOf } from './request-guard.ts'

/**
 * The front door of a process. It listens from the start, passes requests to the services that are currently
 * mounted, and closes only when all requests have been answered. A request to a service that is not mounted
 * gets 503.
 */
export interface FrontDoor extends MountedServices {
  readonly url: string
  mount(name: string, app: HttpServer): void
  /** Makes new requests to the service get 503. Resolves when the requests in flight are done. */
  unmount(name: string): Promise<void>
  /**
   * Makes every later response close its connection, so that clients with a connection pool connect to
   * another process.
   */
  drain(): void
  /** Stops accepting connections. Resolves when the existing connections are closed. */
  close(): Promise<void>
}

/** The services that are mounted in the front door. */
export interface MountedServices {
  has(name: string): boolean
  /** Passes a request to a mounted service. */
  pass(name: string, request: IncomingMessage, response: ServerResponse): void
}

export interface FrontDoorOptions {
  readonly host: string
  /** The port to listen on; 0 means any free port. */
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

/** Opens the front door. Rejects if the address is not available. */
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

/**
 * The host name for a URL that reaches the listening address from this machine: loopback if the process
 * listens on all addresses.
 */
export function reachable(host: string): string {
  if (['0.0.0.0', '::', '*'].includes(host)) return '127.0.0.1'
  return host.includes(':') ? `[${host}]` : host
}
