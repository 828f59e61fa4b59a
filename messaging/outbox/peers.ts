import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { createNotifier } from '../../platform/database/notifier.ts'

/**
 * How the relays of a service's instances notify each other. A commit in one process can write rows of a lane
 * that another instance holds, and a request in one process can wait for a call that another instance makes.
 * A notification carries no data: its receiver polls the database. If a notification is lost, the rows wait
 * for the next regular poll.
 */
export interface Peers {
  /** Notifies other instances that there are rows in their lanes. */
  wakeOthers(): void
  /** Notifies other instances that results of calls were written. */
  notifyAttempted(): void
  close(): void
}

export interface PeersOptions {
  readonly database: Database
  readonly schema: string
  readonly runtime: Runtime
  readonly log: Log
  readonly onRows: () => void
  readonly onAttempted: () => void
}

export function listenToPeers(options: PeersOptions): Peers {
  const { database, schema } = options
  const channels = { rows: `trifold_${schema}_rows`, attempts: `trifold_${schema}_tried` }
  const closing = new AbortController()
  const stopListening = [
    database.listen(channels.rows, options.onRows),
    database.listen(channels.attempts, options.onAttempted),
  ]

  const notifier = (channel: string) =>
    createNotifier({ ...options, channel, stopped: closing.signal })
  return {
    wakeOthers: notifier(channels.rows),
    notifyAttempted: notifier(channels.attempts),
    close() {
      closing.abort()
      for (const stop of stopListening) stop()
    },
  }
}
