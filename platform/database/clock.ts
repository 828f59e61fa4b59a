import type { Runtime } from '../async/runtime.ts'
import { DatabaseError, type Queryable } from './database.ts'

/**
 * The time of the database's clock, in epoch milliseconds. Deadlines and due times are compared by
 * it, because the clock of a process may be wrong or jump.
 */
export type DatabaseClock = (db: Queryable) => Promise<number>

/** A jump of the process's clock by more than this is noticed; a smaller one is the largest error. */
const MAX_AGE_MS = 1_000

/**
 * Reads the database's clock once a second and adds the time that has passed since. Throws a conflict, so that
 * the transaction starts again, where the answer came so late that the time in it is no longer the time: the
 * process was frozen meanwhile, or its clock jumped.
 */
export function createDatabaseClock({ now }: Pick<Runtime, 'now'>): DatabaseClock {
  let readAt = Number.NEGATIVE_INFINITY
  let aheadMs = 0
  return async (db) => {
    const ageMs = now() - readAt
    if (ageMs < 0 || ageMs > MAX_AGE_MS) {
      const askedAt = now()
      const [row] = await db.query<{ now: Date }>('select now() as now')
      const answeredAt = now()
      if (answeredAt - askedAt > MAX_AGE_MS) {
        throw new DatabaseError("the database's clock was read too slowly", 'conflict')
      }
      readAt = answeredAt
      aheadMs = row!.now.getTime() - readAt
    }
    return now() + aheadMs
  }
}
