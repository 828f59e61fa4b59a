import { createConnection, type Socket } from 'node:net'

export interface Response {
  readonly status: number
  readonly body: string
}

/**
 * Keep-alive connections to one server, one for each request in flight. Requests are written directly to
 * sockets, so that this process uses as little as possible of the measured machine.
 */
export function openConnections(url: string) {
  const { hostname, port, host } = new URL(url)
  const idle: Socket[] = []
  const all = new Set<Socket>()

  function connect(): Socket {
    const socket = createConnection(Number(port), hostname).setNoDelay(true)
    all.add(socket)
    // An error without a listener would end the process; a request in flight has a listener of its own.
    socket.on('error', () => undefined)
    socket.once('close', () => all.delete(socket))
    return socket
  }

  return {
    /** Sends a request; rejects if the connection ends before the response. */
    async send(line: string, headers: readonly string[], body = ''): Promise<Response> {
      const kept = idle.pop()
      const socket = kept && all.has(kept) ? kept : connect()
      const head = [`${line} HTTP/1.1`, `host: ${host}`, ...headers]
      if (body !== '') head.push(`content-length: ${body.length}`)
      socket.write(`${head.join('\r\n')}\r\n\r\n${body}`)
      const response = await responseOf(socket)
      idle.push(socket)
      return response
    },
    close() {
      for (const socket of all) socket.destroy()
    },
  }
}

function responseOf(socket: Socket): Promise<Response> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0)
    function onData(chunk: Buffer): void {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const response = parseResponse(received)
      if (response) end(() => resolve(response))
    }
    const onError = (error: Error) => end(() => reject(error))
    const onClose = () => end(() => reject(new Error('the server closed a connection in use')))
    function end(settle: () => void): void {
      socket.off('data', onData).off('error', onError).off('close', onClose)
      settle()
    }
    socket.on('data', onData).on('error', onError).on('close', onClose)
  })
}

/** Parses a response; undefined while it is incomplete. */
export function parseResponse(received: Buffer): Response | undefined {
  const head = received.indexOf('\r\n\r\n')
  if (head < 0) return undefined
  const text = received.toString('latin1', 0, head)
  const length = /\r\ncontent-length: (\d+)/i.exec(text)?.[1]
  if (length === undefined) throw new Error(`a response without a length: ${text}`)
  const end = head + 4 + Number(length)
  if (received.length < end) return undefined
  return { status: Number(text.slice(9, 12)), body: received.toString('utf8', head + 4, end) }
}
