import { createServer } from 'node:net'

const SEARCHED_PORTS = 100

/** The ports above 1023 that browsers and `fetch` block (https://fetch.spec.whatwg.org, "bad port"). */
const BLOCKED_BY_FETCH: ReadonlySet<number> = new Set([
  ...[1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566],
  ...[6665, 6666, 6667, 6668, 6669, 6679, 6697, 10_080],
])

/**
 * Finds `count` consecutive free loopback ports from `preferred` upward, none of them blocked by `fetch`, and
 * returns the first. Choose `preferred` below 32768, because the system gives higher ports to outgoing
 * connections.
 */
export async function freePorts(preferred: number, count: number): Promise<number> {
  for (let first = preferred; first < preferred + SEARCHED_PORTS; first += count) {
    const row = Array.from({ length: count }, (_, index) => first + index)
    if (row.some((port) => BLOCKED_BY_FETCH.has(port))) continue
    if ((await Promise.all(row.map(isFree))).every(Boolean)) return first
  }
  throw new Error(`cannot find ${count} consecutive free ports from ${preferred} upward`)
}

export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
