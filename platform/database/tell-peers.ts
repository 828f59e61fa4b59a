import type { Log, Runtime } from '../async/runtime.ts'
import type { Database } from './database.ts'

export interface TellOptions {
  readonly database: Database
  readonly runtime: Runtime
  readonly log: Log
  readonly channel: string
  readonly stopped: AbortSignal
}

/** Signals of so long a time are one: each costs the database a transaction. */
const GATHER_MS = 5

/** Returns what tells the listeners of a channel, in any process, that there is something to look for. */
export function createTeller({ database, runtime, log, channel, stopped }: TellOptions) {
  let isComing = false
  async function tell(): Promise<void> {
    if (isComing) return
    isComing = true
    await runtime.sleep(GATHER_MS, stopped)
    isComing = false
    await database.notify(channel).catch((err) => log.debug({ err }, 'a signal was not sent'))
  }
  return () => void tell()
}
