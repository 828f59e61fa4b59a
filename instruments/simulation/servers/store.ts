import type { Session } from '../../../platform/pglite/session.ts'
import { type Run, simulate } from '../run.ts'
import { START_MS } from '../world/scheduler.ts'
import { takeImage } from './database-image.ts'
import { openEmptyStore, type Store } from './empty-store.ts'

/**
 * Opens the database for the runs: empty, but warm. Between runs it is restored from an image in which the
 * services' statements are prepared and planned, so that a seed gives the same run whatever ran before it.
 */
export async function openStore(): Promise<Store> {
  const { pglite, ...empty } = await openEmptyStore()
  const { session, useClock } = empty
  const statements = new Map<string, number>()
  const recording: Session = {
    ...session,
    run(text, params = []) {
      statements.set(text, params.length)
      return session.run(text, params)
    },
  }
  for (const run of WARM_UP) await simulate({ ...empty, session: recording }, run)
  useClock(() => START_MS)
  await empty.reset()
  for (const [text, params] of statements) await plan(session, text, params)
  await session.script('checkpoint')
  const restoreImage = takeImage(pglite)
  const restoreStatements = session.snapshotStatements()
  return {
    ...empty,
    async reset() {
      restoreImage()
      restoreStatements()
    },
  }
}

/** Together these runs execute nearly every statement; a run plans any other statement when it first needs it. */
const WARM_UP: readonly Run[] = [
  { seed: 1, style: 'mixed', profile: 'storm' },
  { seed: 2, style: 'mixed', profile: 'lost-log' },
  { seed: 3, style: 'http', profile: 'network' },
  { seed: 4, style: 'hybrid', profile: 'crashes' },
]

/**
 * Makes PostgreSQL plan a statement by executing it with all parameters null, which match no rows; an insert may
 * fail, which does not matter. The transaction is rolled back.
 */
async function plan(session: Session, text: string, params: number): Promise<void> {
  await session.script('begin')
  await session.run(text, new Array(params).fill(null)).catch(() => {})
  await session.script('rollback')
}
