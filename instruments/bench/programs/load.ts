import { createConnection, type Socket } from 'node:net'
import { runTasks } from '../measured-process.ts'
import { parseResponse } from './connections.ts'

/**
 * Customers in a separate process: each connection sends its next POST /orders as soon as the last one got
 * its response. Bytes are written directly to sockets and only statuses are parsed, so that this process uses
 * as little as possible of the measured machine.
 */
export interface Load {
  /** The URL of the order service, or of another server that accepts POST /orders. */
  readonly url: string
  readonly style: string
  readonly connections: number
  /** Ids of the accounts; orders are placed for them in turn. */
  readonly accounts: readonly string[]
  /** The load ends after this many seconds, or this many orders, whichever comes first. */
  readonly seconds: number
  readonly orders?: number
}

export interface LoadResult {
  /** The number of responses 201. */
  readonly accepted: number
  /** The number of other responses, by status. */
  readonly rejected: Readonly<Record<string, number>>
  readonly seconds: number
  /** The latencies of the first responses, up to a limit. */
  readonly latenciesMs: readonly number[]
  readonly cpuMs: number
}

const MAX_LATENCIES = 100_000
const BODY = JSON.stringify({ productQuantity: 1 })

export async function applyLoad(load: Load): Promise<LoadResult> {
  const { hostname, port, host } = new URL(load.url)
  const requests = load.accounts.map((account) => requestOf(account, load.style, host))
  const startedMs = performance.now()
  const untilMs = startedMs + load.seconds * 1_000
  const latenciesMs: number[] = []
  const rejected: Record<string, number> = {}
  let accepted = 0
  let sent = 0

  const next = () => {
    const isOver = performance.now() >= untilMs || sent === load.orders
    return isOver ? undefined : requests[sent++ % requests.length]
  }
  const onResponse = (status: number, tookMs: number) => {
    if (status === 201) accepted += 1
    else rejected[status] = (rejected[status] ?? 0) + 1
    if (latenciesMs.length < MAX_LATENCIES) latenciesMs.push(tookMs)
  }
  const cpu = process.cpuUsage()
  await Promise.all(
    Array.from({ length: load.connections }, () =>
      placeOrders(createConnection(Number(port), hostname), next, onResponse),
    ),
  )
  const { user, system } = process.cpuUsage(cpu)
  const seconds = (performance.now() - startedMs) / 1_000
  return { accepted, rejected, seconds, latenciesMs, cpuMs: (user + system) / 1_000 }
}

function requestOf(account: string, style: string, host: string): Buffer {
  const lines = [
    `POST /orders?profileId=${account} HTTP/1.1`,
    `host: ${host}`,
    'content-type: application/json',
    `content-length: ${BODY.length}`,
    `x-interaction-style: ${style}`,
  ]
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${BODY}`)
}

/** Sends one request after another on a connection until `next` returns undefined. */
function placeOrders(
  socket: Socket,
  next: () => Buffer | undefined,
  onResponse: (status: number, tookMs: number) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let sentMs = 0
    let isOver = false
    let received = Buffer.alloc(0)

    function send(): void {
      const request = next()
      isOver = request === undefined
      if (request === undefined) return void socket.end()
      sentMs = performance.now()
      socket.write(request)
    }

    socket.setNoDelay(true)
    socket.on('connect', send)
    socket.on('data', (chunk) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const response = parseResponse(received)
      if (response === undefined) return
      received = Buffer.alloc(0)
      onResponse(response.status, performance.now() - sentMs)
      send()
    })
    socket.on('error', reject)
    socket.on('close', () => {
      if (isOver) resolve()
      else reject(new Error('the server closed a connection in use'))
    })
  })
}

if (import.meta.main) runTasks(applyLoad)
