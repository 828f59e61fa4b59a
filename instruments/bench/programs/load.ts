import { createConnection, type Socket } from 'node:net'
import { answerTasks } from '../measured-process.ts'
import { wholeAnswer } from './connections.ts'

/**
 * Customers, as a process of their own: so many connections, each with its next POST /orders as soon as
 * the last one is answered, or at a given rate. It writes bytes to sockets and looks for statuses, so
 * that it takes little of the machine that it measures.
 */
export interface Load {
  /** Of the order service, or of whatever else takes POST /orders. */
  readonly url: string
  readonly style: string
  readonly connections: number
  /** Ids of the accounts that order, in turn. */
  readonly accounts: readonly string[]
  /** Ends after so many seconds, or so many orders, whichever comes first. */
  readonly seconds: number
  readonly orders?: number
}

export interface LoadResult {
  /** Answered 201. */
  readonly accepted: number
  /** Any other answer, by its status. */
  readonly refused: Readonly<Record<string, number>>
  readonly seconds: number
  /** Of each answer, for as many as fit. */
  readonly latenciesMs: readonly number[]
  readonly cpuMs: number
}

const MOST_LATENCIES = 100_000
const BODY = JSON.stringify({ productQuantity: 1 })

export async function applyLoad(load: Load): Promise<LoadResult> {
  const { hostname, port, host } = new URL(load.url)
  const requests = load.accounts.map((account) => requestOf(account, load.style, host))
  const begunMs = performance.now()
  const untilMs = begunMs + load.seconds * 1_000
  const latenciesMs: number[] = []
  const refused: Record<string, number> = {}
  let accepted = 0
  let sent = 0

  const next = () => {
    const isOver = performance.now() >= untilMs || sent === load.orders
    return isOver ? undefined : requests[sent++ % requests.length]
  }
  const answered = (status: number, tookMs: number) => {
    if (status === 201) accepted += 1
    else refused[status] = (refused[status] ?? 0) + 1
    if (latenciesMs.length < MOST_LATENCIES) latenciesMs.push(tookMs)
  }
  const cpu = process.cpuUsage()
  await Promise.all(
    Array.from({ length: load.connections }, () =>
      converse(createConnection(Number(port), hostname), next, answered),
    ),
  )
  const { user, system } = process.cpuUsage(cpu)
  const seconds = (performance.now() - begunMs) / 1_000
  return { accepted, refused, seconds, latenciesMs, cpuMs: (user + system) / 1_000 }
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

/** Asks and is answered on one connection until there is nothing more to ask. */
function converse(
  socket: Socket,
  next: () => Buffer | undefined,
  answered: (status: number, tookMs: number) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let askedMs = 0
    let isOver = false
    let received = Buffer.alloc(0)

    function ask(): void {
      const request = next()
      isOver = request === undefined
      if (request === undefined) return void socket.end()
      askedMs = performance.now()
      socket.write(request)
    }

    socket.setNoDelay(true)
    socket.on('connect', ask)
    socket.on('data', (chunk) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const answer = wholeAnswer(received)
      if (answer === undefined) return
      received = Buffer.alloc(0)
      answered(answer.status, performance.now() - askedMs)
      ask()
    })
    socket.on('error', reject)
    socket.on('close', () => {
      if (isOver) resolve()
      else reject(new Error('the server closed a connection that waited for an answer'))
    })
  })
}

if (import.meta.main) answerTasks(applyLoad)
