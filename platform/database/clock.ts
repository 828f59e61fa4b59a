import type { Runtime } from '../async/runtime.ts'
import { DatabaseError, type Queryable } from './database.ts'

/**
 * Returns the time of the database's clock, in epoch milliseconds. Deadlines and due times are compared
 * with it, because the clock of a process may be wrong or jump.
 */
export type DatabaseClock = (db: Queryable) => Promise<number>

/**
 * How long a reading of the database's clock is used. If the process's clock jumps by more than this, the
 * jump is detected; a smaller jump makes the time inaccurate by that much.
 */
const MAX_AGE_MS = 1_000

/**
 * Reads the database's clock at most once a second, and adds the time that has passed since the reading. If a
 * reading takes too long, because the process was frozen or its clock jumped, the time is out of date. The
 * function then throws a conflict, so that the transaction is retried.
 */
export function createDatabaseClock({ now }: Pick<Runtime, 'now'>): DatabaseClock {
  let readAt = Number.NEGATIVE_INFINITY
  let aheadMs = 0
  return async (db) => {
    const ageMs = now() - readAt
    if (ageMs < 0 || ageMs > MAX_AGE_MS) {
      const startedAt = now()
      const [row] = await db.query<{ now: Date }>('select now() as now')
      const endedAt = now()
      if (endedAt - startedAt > MAX_AGE_MS) {
        throw new DatabaseError("reading the database's clock took too long", 'conflict')
      }
      readAt = endedAt
      aheadMs = row!.now.getTime() - readAt
    }
    return now() + aheadMs
  }
}
