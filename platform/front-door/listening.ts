import { once } from 'node:events'
import type { Server as HttpServer } from 'node:http'
import { type AddressInfo, createServer, type ListenOptions, type Server } from 'node:net'

/**
 * How many sockets listen on the port. In each turn of the event loop, libuv accepts one connection per
 * listening socket. If a turn takes 20 ms, one socket accepts 50 connections a second. Other clients wait in
 * the kernel until they hang up, and the process cannot even reject them. With 64 sockets, a busy process
 * accepts so many connections that little of its time is left for orders.
 */
const SOCKETS = 16
/**
 * How many connections may wait on each socket. They are accepted in order of arrival, so a longer queue would be
 * full of clients that have hung up.
 */
const BACKLOG = 32
/** How long the last responses may take when the sockets close. The HTTP listener has the same limit. */
const LAST_RESPONSES_MS = 1_000
const CLOSE_IDLE_EVERY_MS = 50

export interface Listening {
  readonly port: number
  /**
   * Stops accepting connections. Resolves when the connections accepted by these sockets are closed, after a
   * second at most.
   */
  close(): Promise<void>
}

/** Makes an HTTP server listen. Port 0 means any free port. Rejects if the address is not available. */
export async function listenOn(
  server: HttpServer,
  host: string,
  wantedPort: number,
): Promise<Listening> {
  if (process.platform !== 'linux') {
    return { port: await listen(server, { host, port: wantedPort }), close: async () => undefined }
  }
  // Sockets that share a port would share it with other processes as well. The probe does not share, so it
  // fails if the port is taken.
  const probe = createServer()
  const port = await listen(probe, { host, port: wantedPort })
  probe.close()
  await once(probe, 'close')
  const shared = { host, port, reusePort: true, backlog: BACKLOG }
  await listen(server, shared)
  const more = Array.from({ length: SOCKETS - 1 }, () => anotherSocket(server))
  for (const one of more) await listen(one, shared)
  return {
    port,
    async close() {
      // When an HTTP server closes, it waits only for connections accepted by its own socket.
      const idle = setInterval(() => server.closeIdleConnections(), CLOSE_IDLE_EVERY_MS)
      const limit = setTimeout(() => server.closeAllConnections(), LAST_RESPONSES_MS)
      await Promise.all(more.map((one) => new Promise((resolve) => one.close(resolve))))
      clearInterval(idle)
      clearTimeout(limit)
    },
  }
}

/**
 * Creates another listening socket for an HTTP server, with the options that Node.js uses for the server's
 * own socket.
 */
function anotherSocket(server: HttpServer): Server {
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
