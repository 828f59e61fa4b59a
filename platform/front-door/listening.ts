import { once } from 'node:events'
import type { Server as HttpServer } from 'node:http'
import { type AddressInfo, createServer, type ListenOptions, type Server } from 'node:net'

/**
 * libuv accepts one connection per listening socket and turn of the event loop. When a turn takes 20 ms, one
 * socket accepts 50 connections a second: more clients than that wait in the kernel, unseen, until they
 * hang up, and can't even be rejected. So several sockets listen on the port.
 */
const SOCKETS = 64
/**
 * How many connections wait to be accepted on each. They are accepted in order of arrival, so a longer queue
 * would be full of clients that have hung up.
 */
const BACKLOG = 32
/** As long as the HTTP server gives its own connections. */
const LAST_ANSWERS_MS = 1_000
const CLOSE_IDLE_EVERY_MS = 50

export interface Listening {
  readonly port: number
  /** Accepts no more connections; resolves when those accepted here have ended, a second at most. */
  close(): Promise<void>
}

/** Listens with an HTTP server. Port 0 takes any free one. Rejects when the address isn't available. */
export async function listenOn(
  server: HttpServer,
  host: string,
  wanted: number,
): Promise<Listening> {
  if (process.platform !== 'linux') {
    return { port: await listen(server, { host, port: wanted }), close: async () => undefined }
  }
  // Sockets that share a port would share it with another process, too. This one doesn't.
  const probe = createServer()
  const port = await listen(probe, { host, port: wanted })
  probe.close()
  await once(probe, 'close')
  const shared = { host, port, reusePort: true, backlog: BACKLOG }
  await listen(server, shared)
  const more = Array.from({ length: SOCKETS - 1 }, () => moreOf(server))
  for (const one of more) await listen(one, shared)
  return {
    port,
    async close() {
      // Once closed, the HTTP server waits for connections of its own socket only.
      const idle = setInterval(() => server.closeIdleConnections(), CLOSE_IDLE_EVERY_MS)
      const limit = setTimeout(() => server.closeAllConnections(), LAST_ANSWERS_MS)
      await Promise.all(more.map((one) => new Promise((resolve) => one.close(resolve))))
      clearInterval(idle)
      clearTimeout(limit)
    },
  }
}

/** Another socket of an HTTP server, with the options that Node.js gives to the first. */
function moreOf(server: HttpServer): Server {
  const one = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    server.emit('connection', socket)
  })
  one.maxConnections = server.maxConnections
  return one
}

async function listen(server: Server, options: ListenOptions): Promise<number> {
  server.listen(options)
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}
