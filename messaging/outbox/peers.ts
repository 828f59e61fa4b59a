import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { createNotifier } from '../../platform/database/notifier.ts'

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

export function listenToPeers(options: PeersOptions): Peers {
  const { database, schema } = options
  const channels = { rows: `trifold_${schema}_rows`, tried: `trifold_${schema}_tried` }
  const closing = new AbortController()
  const ends = [
    database.listen(channels.rows, options.onRows),
    database.listen(channels.tried, options.onTried),
  ]

  const teller = (channel: string) =>
    createNotifier({ ...options, channel, stopped: closing.signal })
  return {
    wakeOthers: teller(channels.rows),
    tellTried: teller(channels.tried),
    close() {
      closing.abort()
      for (const end of ends) end()
    },
  }
}
