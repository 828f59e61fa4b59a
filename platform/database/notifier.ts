import type { Log, Runtime } from '../async/runtime.ts'
import type { Database } from './database.ts'

export interface NotifierOptions {
  readonly database: Database
  readonly runtime: Runtime
  readonly log: Log
  readonly channel: string
  readonly stopped: AbortSignal
}

/**
 * Notifications are collected for this many milliseconds and sent as one, because each costs a transaction.
 */
const GATHER_MS = 5

/** Returns a function that notifies the listeners of a channel, in any process. It never throws. */
export function createNotifier({ database, runtime, log, channel, stopped }: NotifierOptions) {
  let isScheduled = false
  async function send(): Promise<void> {
    if (isScheduled) return
    isScheduled = true
    await runtime.sleep(GATHER_MS, stopped)
    isScheduled = false
    await database
      .notify(channel)
      .catch((err) => log.debug({ err }, 'failed to send a notification to other instances'))
  }
  return () => void send()
}
