import type { Session } from '../../../platform/pglite/session.ts'
import { type Run, simulate } from '../run.ts'
import { START_MS } from '../world/scheduler.ts'
import { takeImage } from './database-image.ts'
import { openEmptyStore, type Store } from './empty-store.ts'

/**
 * The database as the runs use it: empty, but warm. Between runs it is put back to an image in which
 * all statements of the services are prepared and planned, so that a seed gives the same run
 * whatever ran before it.
 */
export async function openStore(): Promise<Store> {
  const { pglite, ...empty } = await openEmptyStore()
  const { session, useClock } = empty
  const statements = new Map<string, number>()
  const noted: Session = {
    ...session,
    run(text, params = []) {
      statements.set(text, params.length)
      return session.run(text, params)
    },
  }
  for (const run of WARM_UP) await simulate({ ...empty, session: noted }, run)
  useClock(() => START_MS)
  await empty.reset()
  for (const [text, params] of statements) await plan(session, text, params)
  await session.script('checkpoint')
  const putBack = takeImage(pglite)
  const restoreStatements = session.snapshotStatements()
  return {
    ...empty,
    async reset() {
      putBack()
      restoreStatements()
    },
  }
}

/** Between them they come by nearly every statement; what is missed is planned where it is needed. */
const WARM_UP: readonly Run[] = [
  { seed: 1, style: 'mixed', profile: 'storm' },
  { seed: 2, style: 'mixed', profile: 'lost-log' },
  { seed: 3, style: 'http', profile: 'network' },
  { seed: 4, style: 'hybrid', profile: 'crashes' },
]

/** Parameters that are all null match nothing and are refused where they would insert something. */
async function plan(session: Session, text: string, params: number): Promise<void> {
  await session.script('begin')
  await session.run(text, new Array(params).fill(null)).catch(() => {})
  await session.script('rollback')
}
