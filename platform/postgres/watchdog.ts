import { Client, DatabaseError as ServerError } from 'pg'
import { DatabaseError } from '../database/database.ts'

/**
 * Tells an unresponsive server (frozen, or cut off from the network) from a server that is still executing a
 * long statement. On an unresponsive server, each request would wait for as long as the longest statement may
 * take, and the requests queued behind it would then wait just as long.
 */
export interface Watchdog {
  /** Throws while the server is unresponsive, so that no request starts to wait for it. */
  assertResponsive(): void
  /**
   * Returns a promise that follows `answer`, but rejects if the server becomes unresponsive or `limitMs`
   * passes.
   */
  watch<T>(answer: Promise<T>): Promise<T>
  close(): void
}

export interface WatchdogOptions {
  readonly url: string
  /**
   * How long to wait for one answer while the server answers other requests. After that, the connection
   * counts as lost.
   */
  readonly limitMs: number
  /** Called when the server becomes unresponsive. */
  readonly onUnresponsive: (error: Error) => void
}

/** If requests are waiting and the server has answered none of them for this long, the server is probed. */
const SUSPECT_AFTER_MS = 2_000
/** If the server does not respond to a new connection within this time, it is unresponsive. */
const PROBE_LIMIT_MS = 3_000
const PROBE_AGAIN_MS = 500

/**
 * A wait for an answer: when it started, and how to end it with an error. There is one for every batch of
 * statements. The object has no closures and is cleared after the wait, because V8 keeps everything that
 * closures, and outdated hash tables of a Set, refer to until its next major garbage collection.
 */
interface Waiting {
  readonly sinceMs: number
  giveUp: ((error: Error) => void) | undefined
}

export function createWatchdog({ url, limitMs, onUnresponsive }: WatchdogOptions): Watchdog {
  const waiting = new Set<Waiting>()
  let answeredAt = 0
  let isUnresponsive = false
  let isProbing = false
  let timer: NodeJS.Timeout | undefined
  let closed = false

  function checkIn(delayMs: number): void {
    timer = closed ? undefined : setTimeout(() => void check(), delayMs)
  }

  async function check(): Promise<void> {
    giveUpLate()
    // A Set keeps the order of insertion, so the first entry is the oldest.
    const [oldest] = waiting
    if (oldest === undefined && !isUnresponsive) {
      timer = undefined
      return
    }
    const quietMs = performance.now() - Math.max(oldest?.sinceMs ?? 0, answeredAt)
    if (!isUnresponsive && quietMs < SUSPECT_AFTER_MS) return checkIn(SUSPECT_AFTER_MS - quietMs)
    const before = answeredAt
    isProbing = true
    const answers = await probe(url)
    isProbing = false
    // A server that cannot start a process for the probe's connection may still be answering other requests.
    if (answers || answeredAt !== before) {
      answeredAt = performance.now()
      isUnresponsive = false
      return checkIn(SUSPECT_AFTER_MS)
    }
    if (!isUnresponsive && !closed) onUnresponsive(unresponsive())
    isUnresponsive = true
    for (const { giveUp } of waiting) giveUp?.(unresponsive())
    waiting.clear()
    checkIn(PROBE_AGAIN_MS)
  }

  function giveUpLate(): void {
    const limit = performance.now() - limitMs
    for (const one of waiting) {
      if (one.sinceMs > limit) return
      waiting.delete(one)
      one.giveUp?.(new DatabaseError('PostgreSQL did not respond in time', 'unavailable'))
    }
  }

  /** Stops the timer while no request waits, so that an idle process does not wake up for checks. */
  function rest(): void {
    clearTimeout(timer)
    timer = undefined
  }

  return {
    assertResponsive() {
      if (isUnresponsive) throw unresponsive()
    },
    async watch(answer) {
      const { promise: givenUp, reject: giveUp } = Promise.withResolvers<never>()
      const one: Waiting = { sinceMs: performance.now(), giveUp }
      waiting.add(one)
      if (timer === undefined) checkIn(SUSPECT_AFTER_MS)
      try {
        const value = await Promise.race([answer, givenUp])
        answeredAt = performance.now()
        return value
      } catch (error) {
        if (error instanceof ServerError) answeredAt = performance.now()
        throw error
      } finally {
        waiting.delete(one)
        one.giveUp = undefined
        if (waiting.size === 0 && !isUnresponsive && !isProbing) rest()
      }
    },
    close() {
      closed = true
      clearTimeout(timer)
    },
  }
}

const unresponsive = () => new DatabaseError('PostgreSQL does not respond', 'unavailable')

/** Whether the server responds at all. Rejecting the connection counts as a response. */
async function probe(url: string): Promise<boolean> {
  let client: Client | undefined
  try {
    client = new Client({
      connectionString: url,
      connectionTimeoutMillis: PROBE_LIMIT_MS,
      query_timeout: PROBE_LIMIT_MS,
      application_name: 'trifold-probe',
    })
    client.on('error', () => undefined)
    await client.connect()
    await client.query('select 1')
    return true
  } catch (error) {
    return error instanceof ServerError || isConnectionRefused(error)
  } finally {
    client?.end().catch(() => undefined)
  }
}

/**
 * If no server is listening, new connections fail at once and earlier ones have been reset, so no request
 * waits in vain.
 */
const isConnectionRefused = (error: unknown) =>
  (error as { code?: unknown }).code === 'ECONNREFUSED'
