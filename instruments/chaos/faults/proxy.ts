import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

/**
 * A fault of a network link. `latency` and `slow` delay each direction separately; bytes never overtake each
 * other.
 *
 * - `latency`: each chunk arrives `delayMs` later, plus a random part of `jitterMs`.
 * - `slow`: `bytesPerSecond` pass in each direction.
 * - `stall`: nothing passes in either direction. Bytes sent during the fault arrive when it is over, as they
 *   do after a network outage, so a request can be carried out long after its client gave up.
 * - `half-open`: the other end is gone without a FIN or RST. Each connection stays open to the client, and
 *   all bytes that the client sends on it are discarded, forever; connections made after the fault work.
 * - `cut`: connections are closed, and new ones are closed as soon as they are made.
 * - `reset`: a connection is reset as soon as the server sends bytes on it, and these bytes are lost: the
 *   request was carried out, but the client cannot know that.
 */
export type Toxic =
  | { readonly kind: 'latency'; readonly delayMs: number; readonly jitterMs: number }
  | { readonly kind: 'slow'; readonly bytesPerSecond: number }
  | { readonly kind: 'stall' | 'half-open' | 'cut' | 'reset' }

export type ToxicKind = Toxic['kind']

export interface TcpProxy {
  /** The loopback port that clients connect to. */
  readonly port: number
  /** The number of open client connections. */
  readonly connections: number
  /**
   * Replaces the current fault, for existing and new connections. A `share` below 1 applies the fault to that
   * part of the connections, evenly spread.
   */
  poison(toxic: Toxic, share?: number): void
  /** Ends the current fault. */
  heal(): void
  close(): Promise<void>
}

interface Trouble {
  readonly toxic: Toxic
  readonly share: number
}

/** A client's connection, and the connection to the server to which its bytes are forwarded. */
interface Pair {
  readonly number: number
  readonly client: Socket
  /** undefined once the server's end is gone and the client has not been notified. */
  forwarding:
    | { readonly upstream: Socket; readonly toServer: Flow; readonly toClient: Flow }
    | undefined
}

/** Forwards TCP connections on loopback to a port, which may have no server yet, and injects faults into them. */
export async function startProxy(targetPort: number): Promise<TcpProxy> {
  const pairs = new Set<Pair>()
  const upstreams = new Set<Socket>()
  let trouble: Trouble | undefined
  let count = 0

  const toxicOf = (number: number): Toxic | undefined => {
    if (trouble === undefined) return undefined
    const { toxic, share } = trouble
    // `number * share` passes a whole number for exactly that share of consecutive numbers, evenly spread.
    return Math.floor((number + 1) * share) > Math.floor(number * share) ? toxic : undefined
  }

  function accept(client: Socket): void {
    const number = count++
    client.setNoDelay(true)
    client.on('error', () => undefined)
    const kind = toxicOf(number)?.kind
    if (kind === 'cut') return void client.destroy()
    const pair: Pair = { number, client, forwarding: undefined }
    pairs.add(pair)
    client.on('close', () => {
      pairs.delete(pair)
      // The bytes that the client sent before it gave up are in flight and still arrive.
      pair.forwarding?.toServer.finish()
      pair.forwarding?.toClient.drop()
    })
    if (kind === 'half-open') discardInput(client)
    else dial(pair)
  }

  function dial(pair: Pair): void {
    const { client, number } = pair
    const upstream = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true })
    upstream.setNoDelay(true)
    upstreams.add(upstream)
    upstream.on('error', () => undefined)
    upstream.on('close', (hasFailed) => {
      upstreams.delete(upstream)
      if (!hasFailed || pair.forwarding?.upstream !== upstream) return
      // While no bytes pass, the reset does not pass either.
      if (toxicOf(number)?.kind === 'stall') abandon(pair)
      else client.resetAndDestroy()
    })
    const toxic = () => toxicOf(number)
    pair.forwarding = {
      upstream,
      toServer: createFlow({ from: client, to: upstream, toxic, reset: undefined }),
      toClient: createFlow({
        from: upstream,
        to: client,
        toxic,
        reset: () => client.resetAndDestroy(),
      }),
    }
  }

  /** Applies a change of the fault to an existing connection. */
  function applyChange(pair: Pair): void {
    const kind = toxicOf(pair.number)?.kind
    if (kind === 'cut') pair.client.destroy()
    else if (kind === 'half-open') abandon(pair)
    pair.forwarding?.toServer.refresh()
    pair.forwarding?.toClient.refresh()
  }

  const server = createServer({ allowHalfOpen: true }, accept)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as { port: number }).port,
    get connections() {
      return pairs.size
    },
    poison(toxic, share = 1) {
      trouble = { toxic, share }
      for (const pair of pairs) applyChange(pair)
    },
    heal() {
      trouble = undefined
      for (const pair of pairs) applyChange(pair)
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const { client } of pairs) client.destroy()
      for (const upstream of upstreams) upstream.destroy()
      await closed
    },
  }
}

/** Closes the connection to the server without notifying the client. */
function abandon(pair: Pair): void {
  const { forwarding, client } = pair
  pair.forwarding = undefined
  forwarding?.toServer.drop()
  forwarding?.toClient.drop()
  forwarding?.upstream.destroy()
  discardInput(client)
}

function discardInput(client: Socket): void {
  client.on('data', () => undefined)
  client.on('end', () => client.destroy())
  client.resume()
}

/** One direction of a connection. */
interface Flow {
  /** Called when the fault may have changed. */
  refresh(): void
  /** Ends the receiver's connection after the bytes that wait have been sent. */
  finish(): void
  /** Discards the waiting bytes and all that still arrive. */
  drop(): void
}

interface FlowOptions {
  readonly from: Socket
  readonly to: Socket
  readonly toxic: () => Toxic | undefined
  /** Resets the connection; undefined in the direction that a `reset` fault ignores. */
  readonly reset: (() => void) | undefined
}

/** A direction that holds more bytes than this stops reading from its sender. */
const MAX_WAITING_BYTES = 1 << 20

/** Chunks wait in a queue until they are due; the sender's end of stream waits behind them. */
function createFlow({ from, to, toxic, reset }: FlowOptions): Flow {
  const queue: { readonly bytes: Buffer | 'end'; dueMs: number }[] = []
  let waitingBytes = 0
  /** When a slow link will have passed all bytes sent so far. */
  let freeMs = 0
  let timer: NodeJS.Timeout | undefined
  let isOver = false

  function take(bytes: Buffer | 'end'): void {
    if (isOver) return
    if (bytes === 'end') isOver = true
    else if (reset && toxic()?.kind === 'reset') return reset()
    queue.push({ bytes, dueMs: dueOf(bytes) })
    waitingBytes += bytes.length
    pump()
  }

  function dueOf(bytes: Buffer | 'end'): number {
    const now = performance.now()
    const fault = toxic()
    if (fault?.kind === 'latency') {
      const { delayMs, jitterMs } = fault
      return Math.max(now + delayMs + Math.random() * jitterMs, queue.at(-1)?.dueMs ?? 0)
    }
    if (fault?.kind !== 'slow') return now
    freeMs = Math.max(now, freeMs) + (bytes.length / fault.bytesPerSecond) * 1_000
    return freeMs
  }

  function pump(): void {
    clearTimeout(timer)
    while (queue.length > 0 && toxic()?.kind !== 'stall') {
      const { bytes, dueMs } = queue[0]!
      const leftMs = dueMs - performance.now()
      if (leftMs > 0) {
        timer = setTimeout(pump, Math.ceil(leftMs))
        break
      }
      queue.shift()
      waitingBytes -= bytes.length
      if (bytes === 'end') to.end()
      else to.write(bytes)
    }
    // A receiver that does not read blocks its sender, as it does without a proxy.
    if (waitingBytes > MAX_WAITING_BYTES || to.writableLength > MAX_WAITING_BYTES) from.pause()
    else from.resume()
  }

  from.on('data', take)
  from.on('end', () => take('end'))
  to.on('drain', pump)
  return {
    refresh() {
      // Chunks that waited for a delay are due now that it is over.
      const now = performance.now()
      for (const chunk of queue) chunk.dueMs = Math.min(chunk.dueMs, now)
      freeMs = 0
      pump()
    },
    finish: () => take('end'),
    drop() {
      isOver = true
      queue.length = 0
      waitingBytes = 0
      pump()
    },
  }
}
