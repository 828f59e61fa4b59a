import { createConnection, type Socket } from 'node:net'

export interface Answered {
  readonly status: number
  readonly body: string
}

/**
 * Keep-alive connections to one server, as many as there are questions at a time. Bytes are written to
 * sockets, so that this takes little of the machine that is measured.
 */
export function openConnections(url: string) {
  const { hostname, port, host } = new URL(url)
  const idle: Socket[] = []
  const all = new Set<Socket>()

  function connect(): Socket {
    const socket = createConnection(Number(port), hostname).setNoDelay(true)
    all.add(socket)
    // Whoever waits for an answer hears of it, too.
    socket.on('error', () => undefined)
    socket.once('close', () => all.delete(socket))
    return socket
  }

  return {
    /** Rejects when the connection ends before the answer has come. */
    async ask(line: string, headers: readonly string[], body = ''): Promise<Answered> {
      const kept = idle.pop()
      const socket = kept && all.has(kept) ? kept : connect()
      const head = [`${line} HTTP/1.1`, `host: ${host}`, ...headers]
      if (body !== '') head.push(`content-length: ${body.length}`)
      socket.write(`${head.join('\r\n')}\r\n\r\n${body}`)
      const answer = await answerOf(socket)
      idle.push(socket)
      return answer
    },
    close() {
      for (const socket of all) socket.destroy()
    },
  }
}

function answerOf(socket: Socket): Promise<Answered> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0)
    function onData(chunk: Buffer): void {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const answer = wholeAnswer(received)
      if (answer) end(() => resolve(answer))
    }
    const onError = (error: Error) => end(() => reject(error))
    const onClose = () => end(() => reject(new Error('the server closed a connection that waited')))
    function end(settle: () => void): void {
      socket.off('data', onData).off('error', onError).off('close', onClose)
      settle()
    }
    socket.on('data', onData).on('error', onError).on('close', onClose)
  })
}

/** An answer that has come as a whole; undefined while there is more of it to come. */
export function wholeAnswer(received: Buffer): Answered | undefined {
  const head = received.indexOf('\r\n\r\n')
  if (head < 0) return undefined
  const text = received.toString('latin1', 0, head)
  const length = /\r\ncontent-length: (\d+)/i.exec(text)?.[1]
  if (length === undefined) throw new Error(`an answer without a length: ${text}`)
  const end = head + 4 + Number(length)
  if (received.length < end) return undefined
  return { status: Number(text.slice(9, 12)), body: received.toString('utf8', head + 4, end) }
}
