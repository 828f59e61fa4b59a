import { createConnection, type Socket } from 'node:net'

/** How clients reach the server. */
export interface Clients {
  /**
   * Sends a request. The callback gets the status of the response, or 0 if the connection ended. Returns the function
   * to call when the client loses patience.
   */
  send(request: Buffer, onStatus: (status: number) => void): () => void
  close(): void
}

/** One connection per client, which hangs up when it loses patience. */
export function ownConnections(port: number, hostname: string): Clients {
  const open = new Set<Socket>()
  return {
    send(request, onStatus) {
      const socket = createConnection(port, hostname)
      open.add(socket)
      socket.on('error', () => undefined)
      socket.on('data', readResponses(onStatus))
      socket.once('close', () => {
        open.delete(socket)
        onStatus(0)
      })
      socket.write(request)
      return () => socket.destroy()
    },
    close() {
      for (const socket of open) socket.destroy()
    },
  }
}

/**
 * Shared keep-alive connections with pipelining, like those of a gateway that never notices when a client hangs up.
 */
export function sharedConnections(port: number, hostname: string, count: number): Clients {
  const pipes = Array.from({ length: count }, () => openPipe(port, hostname))
  let next = 0
  return {
    send(request, onStatus) {
      next = (next + 1) % count
      pipes[next]!.send(request, onStatus)
      return () => undefined
    },
    close() {
      for (const pipe of pipes) pipe.close()
    },
  }
}

function openPipe(port: number, hostname: string) {
  let waiting: ((status: number) => void)[] = []
  let isClosed = false
  let socket = connect()

  function connect(): Socket {
    const opened = createConnection(port, hostname).setNoDelay(true)
    const queue: typeof waiting = []
    waiting = queue
    opened.on('error', () => undefined)
    opened.on(
      'data',
      readResponses((status) => queue.shift()?.(status)),
    )
    opened.once('close', () => {
      for (const onStatus of queue.splice(0)) onStatus(0)
      if (!isClosed && opened === socket) socket = connect()
    })
    return opened
  }

  return {
    send(request: Buffer, onStatus: (status: number) => void) {
      waiting.push(onStatus)
      socket.write(request)
    },
    close() {
      isClosed = true
      socket.destroy()
    },
  }
}

/** Splits the bytes of a connection into responses and reports their statuses. */
function readResponses(onStatus: (status: number) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0)
  return (chunk) => {
    let bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    for (;;) {
      const head = bytes.indexOf('\r\n\r\n')
      if (head < 0) break
      const text = bytes.toString('latin1', 0, head)
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(text)?.[1])
      const end = head + 4 + length
      if (!(bytes.length >= end)) break
      onStatus(Number(text.slice(9, 12)))
      bytes = bytes.subarray(end)
    }
    rest = bytes
  }
}
