import { Client, DatabaseError as ServerError } from 'pg'
import { DatabaseError } from '../database/database.ts'

/**
 * Tells a server that is silent (frozen, or cut off without a word) from one that is slow with a
 * statement. A statement may take long, a silent server must not: whoever waits for it would wait
 * as long as the longest statement may take, and everybody behind him again.
 */
export interface Silence {
  /** Throws while the server is silent, so that nothing begins to wait for it. */
  assertAnswers(): void
  /** The same promise, rejected as soon as the server is found to be silent, or takes longer than the limit. */
  watch<T>(answer: Promise<T>): Promise<T>
  close(): void
}

export interface SilenceOptions {
  readonly url: string
  /** The longest that an answer is waited for while the server answers others: its connection is lost. */
  readonly limitMs: number
  /** Told when a silence begins. */
  readonly onSilence: (error: Error) => void
}

/** With no answer to anybody for so long, although somebody waits, the server is asked on its own. */
const SUSPECT_AFTER_MS = 2_000
/** It answers a new connection within this time, or it is silent. */
const PROBE_LIMIT_MS = 3_000
const PROBE_AGAIN_MS = 500

/**
 * What waits for an answer now, since when, and how to give it up. Without closures and emptied when it waits
 * no longer, because this is made for every batch of statements, and V8 keeps what hangs on closures, and on the
 * tables that a Set leaves behind, until it collects the old garbage too.
 */
interface Waiting {
  readonly sinceMs: number
  giveUp: ((error: Error) => void) | undefined
}

export function watchSilence({ url, limitMs, onSilence }: SilenceOptions): Silence {
  const waiting = new Set<Waiting>()
  let answeredAt = 0
  let isSilent = false
  let isProbing = false
  let timer: NodeJS.Timeout | undefined
  let closed = false

  function checkIn(delayMs: number): void {
    timer = closed ? undefined : setTimeout(() => void check(), delayMs)
  }

  async function check(): Promise<void> {
    giveUpLate()
    // Entries keep the order in which they began.
    const [oldest] = waiting
    if (oldest === undefined && !isSilent) {
      timer = undefined
      return
    }
    const quietMs = performance.now() - Math.max(oldest?.sinceMs ?? 0, answeredAt)
    if (!isSilent && quietMs < SUSPECT_AFTER_MS) return checkIn(SUSPECT_AFTER_MS - quietMs)
    const before = answeredAt
    isProbing = true
    const answers = await probe(url)
    isProbing = false
    // Answers to others may have come while the probe, which is a process of its own, did not start.
    if (answers || answeredAt !== before) {
      answeredAt = performance.now()
      isSilent = false
      return checkIn(SUSPECT_AFTER_MS)
    }
    if (!isSilent && !closed) onSilence(silent())
    isSilent = true
    for (const { giveUp } of waiting) giveUp?.(silent())
    waiting.clear()
    checkIn(PROBE_AGAIN_MS)
  }

  function giveUpLate(): void {
    const limit = performance.now() - limitMs
    for (const one of waiting) {
      if (one.sinceMs > limit) return
      waiting.delete(one)
      one.giveUp?.(new DatabaseError('PostgreSQL did not answer in time', 'unavailable'))
    }
  }

  /** Nobody waits: an idle process need not wake up to find that out. */
  function rest(): void {
    clearTimeout(timer)
    timer = undefined
  }

  return {
    assertAnswers() {
      if (isSilent) throw silent()
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
        if (waiting.size === 0 && !isSilent && !isProbing) rest()
      }
    },
    close() {
      closed = true
      clearTimeout(timer)
    },
  }
}

const silent = () => new DatabaseError('PostgreSQL does not answer', 'unavailable')

/** Whether a server is there that says anything at all; that it will not have us is an answer too. */
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
    return error instanceof ServerError || isRefusal(error)
  } finally {
    client?.end().catch(() => undefined)
  }
}

/** Where nobody listens new connections fail at once, and those that there were have been reset. */
const isRefusal = (error: unknown) => (error as { code?: unknown }).code === 'ECONNREFUSED'
