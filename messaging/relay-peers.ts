import type { Database } from '../platform/database.ts'
import type { Log, Runtime } from '../platform/runtime.ts'

/**
 * How the relays of a service's instances wake each other: a commit in one process may write rows of
 * lanes that another holds, and a request in one may wait for a call that another makes. Signals say
 * only that there is something to look for; one that is lost costs the wait for the next look.
 */
export interface Peers {
  /** There are rows for others. */
  wakeOthers(): void
  /** What became of calls is written. */
  tellTried(): void
  close(): void
}

export interface PeersOptions {
  readonly database: Database
  readonly schema: string
  readonly runtime: Runtime
  readonly log: Log
  readonly onRows: () => void
  readonly onTried: () => void
}

/** Signals of so long a time are one: each costs the database a transaction. */
const GATHER_MS = 5

export function listenToPeers(options: PeersOptions): Peers {
  const { database, schema, runtime, log } = options
  const channels = { rows: `trifold_${schema}_rows`, tried: `trifold_${schema}_tried` }
  const closing = new AbortController()
  const ends = [
    database.listen(channels.rows, options.onRows),
    database.listen(channels.tried, options.onTried),
  ]

  const gathered = (channel: string) => {
    let isComing = false
    return async () => {
      if (isComing) return
      isComing = true
      await runtime.sleep(GATHER_MS, closing.signal)
      isComing = false
      await database.notify(channel).catch((err) => log.debug({ err }, 'a signal was not sent'))
    }
  }
  const wakeOthers = gathered(channels.rows)
  const tellTried = gathered(channels.tried)
  return {
    wakeOthers: () => void wakeOthers(),
    tellTried: () => void tellTried(),
    close() {
      closing.abort()
      for (const end of ends) end()
    },
  }
}
