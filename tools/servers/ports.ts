import { createServer } from 'node:net'

const MOST_TRIES = 100

/**
 * Above 1023, ports that browsers and `fetch` refuse to talk to (https://fetch.spec.whatwg.org,
 * "bad port").
 */
const REFUSED_BY_FETCH: ReadonlySet<number> = new Set([
  ...[1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566],
  ...[6665, 6666, 6667, 6668, 6669, 6679, 6697, 10_080],
])

/**
 * As many free ports in a row on loopback as were asked for, from a port that is preferred upwards,
 * all of them open to `fetch`; returns the first. Keep to ports below 32768: those above go to outgoing connections.
 */
export async function freePorts(preferred: number, count: number): Promise<number> {
  for (let first = preferred; first < preferred + MOST_TRIES; first += count) {
    const row = Array.from({ length: count }, (_, index) => first + index)
    if (row.some((port) => REFUSED_BY_FETCH.has(port))) continue
    if ((await Promise.all(row.map(isFree))).every(Boolean)) return first
  }
  throw new Error(`no ${count} free ports were found from ${preferred} on`)
}

export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
