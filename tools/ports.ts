import { createServer } from 'node:net'

const MOST_TRIES = 100

/**
 * As many free ports in a row on loopback as were asked for, from a port that is preferred upwards;
 * returns the first. Keep to ports below 32768: those above go to outgoing connections.
 */
export async function freePorts(preferred: number, count: number): Promise<number> {
  for (let first = preferred; first < preferred + MOST_TRIES; first += count) {
    const row = Array.from({ length: count }, (_, index) => isFree(first + index))
    if ((await Promise.all(row)).every(Boolean)) return first
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
