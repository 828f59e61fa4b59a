import { createConnection, type Socket } from 'node:net'

/** How clients reach the server. The callback gets the status of the answer, or 0 if the connection ended. */
export interface Clients {
  /** Sends a request. Returns what the client does when it loses patience. */
  send(request: Buffer, answered: (status: number) => void): () => void
  close(): void
}

/** One connection per client, which hangs up when it loses patience. */
export function ownConnections(port: number, hostname: string): Clients {
  const open = new Set<Socket>()
  return {
    send(request, answered) {
      const socket = createConnection(port, hostname)
      open.add(socket)
      socket.on('error', () => undefined)
      socket.on('data', readAnswers(answered))
      socket.once('close', () => {
        open.delete(socket)
        answered(0)
      })
      socket.write(request)
      return () => socket.destroy()
    },
    close() {
      for (const socket of open) socket.destroy()
    },
  }
}

/** Shared keep-alive connections with pipelining, as of a gateway whose clients' impatience it never sees. */
export function sharedConnections(port: number, hostname: string, count: number): Clients {
  const pipes = Array.from({ length: count }, () => openPipe(port, hostname))
  let next = 0
  return {
    send(request, answered) {
      next = (next + 1) % count
      pipes[next]!.send(request, answered)
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
      readAnswers((status) => queue.shift()?.(status)),
    )
    opened.once('close', () => {
      for (const answered of queue.splice(0)) answered(0)
      if (!isClosed && opened === socket) socket = connect()
    })
    return opened
  }

  return {
    send(request: Buffer, answered: (status: number) => void) {
      waiting.push(answered)
      socket.write(request)
    },
    close() {
      isClosed = true
      socket.destroy()
    },
  }
}

/** Splits what a connection brings into answers; only their statuses matter. */
function readAnswers(onStatus: (status: number) => void): (chunk: Buffer) => void {
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
