import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

/**
 * What is wrong with a way through the network while it lasts. `latency` and `slow` hold up each
 * direction by itself; bytes never overtake each other.
 *
 * - `latency`: each piece comes so much later.
 * - `slow`: so many bytes pass in a second.
 * - `stall`: nothing passes in either direction. What was sent meanwhile arrives when it is over, as it
 *   does where a network comes back: an old request may then be done long after it was given up.
 * - `half-open`: the other end has gone and nobody said so. Each connection stays open to the client,
 *   and what it sends is swallowed, for ever: new ones are well again afterwards.
 * - `cut`: connections end, and new ones end as soon as they are made.
 * - `reset`: a connection is torn down as soon as something comes back on it, and that is lost: the
 *   request was done, and the client cannot know.
 */
export type Toxic =
  | { readonly kind: 'latency'; readonly delayMs: number; readonly jitterMs: number }
  | { readonly kind: 'slow'; readonly bytesPerSecond: number }
  | { readonly kind: 'stall' | 'half-open' | 'cut' | 'reset' }

export type ToxicKind = Toxic['kind']

export interface TcpProxy {
  /** On loopback. */
  readonly port: number
  /** How many connections are open to clients. */
  readonly connections: number
  /**
   * From now on, for connections that are there and new ones, in place of what was wrong before. With
   * `share` below 1 only so large a part of them is meant, evenly spread.
   */
  poison(toxic: Toxic, share?: number): void
  /** Nothing is wrong any more. */
  heal(): void
  close(): Promise<void>
}

interface Trouble {
  readonly toxic: Toxic
  readonly share: number
}

/** One connection of a client, with the one to the server that it stands for. */
interface Pair {
  readonly number: number
  readonly client: Socket
  /** undefined: that end has gone and the client was not told. */
  link: { readonly upstream: Socket; readonly forth: Flow; readonly back: Flow } | undefined
}

/** Forwards TCP connections on loopback to a port, which may have no server yet, and hurts them. */
export async function startProxy(targetPort: number): Promise<TcpProxy> {
  const pairs = new Set<Pair>()
  const upstreams = new Set<Socket>()
  let trouble: Trouble | undefined
  let count = 0

  const toxicOf = (number: number): Toxic | undefined => {
    if (trouble === undefined) return undefined
    const { toxic, share } = trouble
    // Of consecutive numbers so many pass a whole number as the share says.
    return Math.floor((number + 1) * share) > Math.floor(number * share) ? toxic : undefined
  }

  function accept(client: Socket): void {
    const number = count++
    client.setNoDelay(true)
    client.on('error', () => undefined)
    const kind = toxicOf(number)?.kind
    if (kind === 'cut') return void client.destroy()
    const pair: Pair = { number, client, link: undefined }
    pairs.add(pair)
    client.on('close', () => {
      pairs.delete(pair)
      // What it sent before it gave up is on its way, and arrives.
      pair.link?.forth.finish()
      pair.link?.back.drop()
    })
    if (kind === 'half-open') swallow(client)
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
      if (!hasFailed || pair.link?.upstream !== upstream) return
      // Where nothing passes, this news does not pass either.
      if (toxicOf(number)?.kind === 'stall') abandon(pair)
      else client.resetAndDestroy()
    })
    const toxic = () => toxicOf(number)
    pair.link = {
      upstream,
      forth: createFlow({ from: client, to: upstream, toxic, reset: undefined }),
      back: createFlow({
        ...{ from: upstream, to: client, toxic },
        reset: () => client.resetAndDestroy(),
      }),
    }
  }

  /** Connections that are there meet what is new. */
  function meet(pair: Pair): void {
    const kind = toxicOf(pair.number)?.kind
    if (kind === 'cut') pair.client.destroy()
    else if (kind === 'half-open') abandon(pair)
    pair.link?.forth.look()
    pair.link?.back.look()
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
      for (const pair of pairs) meet(pair)
    },
    heal() {
      trouble = undefined
      for (const pair of pairs) meet(pair)
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const { client } of pairs) client.destroy()
      for (const upstream of upstreams) upstream.destroy()
      await closed
    },
  }
}

/** The server's end goes, and the client hears nothing of it. */
function abandon(pair: Pair): void {
  const { link, client } = pair
  pair.link = undefined
  link?.forth.drop()
  link?.back.drop()
  link?.upstream.destroy()
  swallow(client)
}

function swallow(client: Socket): void {
  client.on('data', () => undefined)
  client.on('end', () => client.destroy())
  client.resume()
}

/** One direction of a connection. */
interface Flow {
  /** What is wrong may have changed. */
  look(): void
  /** Lets out what waits, then the end. */
  finish(): void
  /** Forgets what waits, and what comes. */
  drop(): void
}

interface FlowOptions {
  readonly from: Socket
  readonly to: Socket
  readonly toxic: () => Toxic | undefined
  /** Tears the connection down, where bytes in this direction bring that about. */
  readonly reset: (() => void) | undefined
}

/** So much may wait in a direction before its sender is held up. */
const MAX_WAITING_BYTES = 1 << 20

/** Pieces wait in a line, each for its time; the end of the sender waits behind them. */
function createFlow({ from, to, toxic, reset }: FlowOptions): Flow {
  const line: { readonly bytes: Buffer | 'end'; dueMs: number }[] = []
  let waitingBytes = 0
  /** When a slow way has let through all that was sent on it. */
  let freeMs = 0
  let timer: NodeJS.Timeout | undefined
  let isOver = false

  function take(bytes: Buffer | 'end'): void {
    if (isOver) return
    if (bytes === 'end') isOver = true
    else if (reset && toxic()?.kind === 'reset') return reset()
    line.push({ bytes, dueMs: dueOf(bytes) })
    waitingBytes += bytes.length
    pump()
  }

  function dueOf(bytes: Buffer | 'end'): number {
    const now = performance.now()
    const wrong = toxic()
    if (wrong?.kind === 'latency') {
      const { delayMs, jitterMs } = wrong
      return Math.max(now + delayMs + Math.random() * jitterMs, line.at(-1)?.dueMs ?? 0)
    }
    if (wrong?.kind !== 'slow') return now
    freeMs = Math.max(now, freeMs) + (bytes.length / wrong.bytesPerSecond) * 1_000
    return freeMs
  }

  function pump(): void {
    clearTimeout(timer)
    while (line.length > 0 && toxic()?.kind !== 'stall') {
      const { bytes, dueMs } = line[0]!
      const leftMs = dueMs - performance.now()
      if (leftMs > 0) {
        timer = setTimeout(pump, Math.ceil(leftMs))
        break
      }
      line.shift()
      waitingBytes -= bytes.length
      if (bytes === 'end') to.end()
      else to.write(bytes)
    }
    // A receiver that does not read holds its sender up, as it does without a proxy.
    if (waitingBytes > MAX_WAITING_BYTES || to.writableLength > MAX_WAITING_BYTES) from.pause()
    else from.resume()
  }

  from.on('data', take)
  from.on('end', () => take('end'))
  to.on('drain', pump)
  return {
    look() {
      // What waited for a delay that is over need not wait any longer.
      const now = performance.now()
      for (const piece of line) piece.dueMs = Math.min(piece.dueMs, now)
      freeMs = 0
      pump()
    },
    finish: () => take('end'),
    drop() {
      isOver = true
      line.length = 0
      waitingBytes = 0
      pump()
    },
  }
}
