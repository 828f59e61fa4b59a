import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import type { Database, Queryable } from '../../../platform/database/database.ts'
import { PROFILES } from '../profiles.ts'
import { openEmptyStore, type Store } from '../servers/empty-store.ts'
import { createDatabases, type SimulatedDatabases } from '../servers/simulated-database.ts'
import { createChances } from '../world/chance.ts'
import { createLife, type Life } from '../world/lives.ts'
import { createScheduler, type Scheduler, START_MS } from '../world/scheduler.ts'
import { createSteps } from '../world/steps.ts'
import { createStory } from '../world/story.ts'
import { createFaults } from './faults.ts'
import { createFreezer, type Freezer } from './freezes.ts'

let store: Store
let scheduler: Scheduler
let databases: SimulatedDatabases
let freezer: Freezer
before(async () => {
  store = await openEmptyStore()
})
after(() => store.close())

beforeEach(async () => {
  await store.reset()
  scheduler = createScheduler()
  const chances = createChances(1)
  const story = createStory(scheduler.now, false)
  const faults = createFaults({ chances, profile: PROFILES.calm })
  const steps = createSteps({
    scheduler,
    chances,
    story,
    faults,
    crash: () => {},
    freeze: async () => {},
    isSlow: () => false,
  })
  databases = createDatabases({
    session: store.session,
    scheduler,
    steps,
    losesSignal: () => false,
  })
  freezer = createFreezer({
    scheduler,
    story,
    onFreeze: (life, durationMs) => databases.freeze(life, durationMs),
  })
})

const lock = (tx: Queryable, lane: number) =>
  tx.query('select lane from billing.relay_lane where lane = $1 for update', [lane])
const at = (ms: number) => scheduler.runUntil(START_MS + ms)

/** The outcome of `work` and when it ended; both are missing while `work` is running. */
function watch(work: Promise<unknown>) {
  const seen: { outcome?: string; ms?: number } = {}
  const note = (outcome: string) => Object.assign(seen, { outcome, ms: scheduler.now() - START_MS })
  work.then(
    () => note('done'),
    (error: { sqlState?: string; kind: string }) => note(error.sqlState ?? error.kind),
  )
  return seen
}

/** Starts a transaction of two statements and freezes its process between them. */
async function freezeInTransaction(life: Life, durationMs: number) {
  const work = databases.of(life).transaction(async (tx) => {
    await lock(tx, 0)
    await freezer.freeze(life, durationMs)
    await lock(tx, 1)
  })
  const seen = watch(work)
  await at(100)
  return seen
}

function lockLater(database: Database, afterMs: number) {
  const due = Promise.withResolvers<void>()
  scheduler.after(afterMs, due.resolve)
  return watch(due.promise.then(() => database.transaction((tx) => lock(tx, 0))))
}

describe('a process that freezes in a transaction', () => {
  test('commits after a freeze shorter than the idle limit, while other processes wait', async () => {
    const frozen = await freezeInTransaction(createLife('billing-1', 'billing'), 3_000)
    const other = lockLater(databases.of(createLife('billing-2', 'billing')), 0)
    await at(2_900)
    assert.deepEqual([frozen, other], [{}, {}])
    await at(4_000)
    assert.equal(frozen.outcome, 'done')
    assert.equal(other.outcome, 'done')
    assert.ok(other.ms! > frozen.ms!)
  })

  test('loses its session in a longer freeze, and notices when it is thawed', async () => {
    const frozen = await freezeInTransaction(createLife('billing-1', 'billing'), 20_000)
    await at(19_900)
    assert.deepEqual(frozen, {})
    await at(21_000)
    assert.equal(frozen.outcome, 'unavailable')
  })

  test('keeps its locks until the server ends its session, and its twin times out until then', async () => {
    await freezeInTransaction(createLife('billing-1', 'billing'), 60_000)
    const twin = databases.of(createLife('billing-2', 'billing'))
    const [early, late] = [lockLater(twin, 0), lockLater(twin, 7_000)]
    await at(30_000)
    assert.equal(early.outcome, '55P03')
    assert.ok(early.ms! >= 5_000 && early.ms! < 6_000)
    assert.equal(late.outcome, 'done')
    assert.ok(late.ms! >= 10_000 && late.ms! < 11_000)
  })

  test('does not block reads or other services', async () => {
    await freezeInTransaction(createLife('billing-1', 'billing'), 60_000)
    const order = lockLater(databases.of(createLife('order-1', 'order')), 0)
    const read = watch(
      databases.of(createLife('billing-2', 'billing')).query('select 1 from billing.relay_lane'),
    )
    await at(500)
    assert.deepEqual([order.outcome, read.outcome], ['done', 'done'])
  })

  test('releases its locks at once when it dies', async () => {
    const life = createLife('billing-1', 'billing')
    await freezeInTransaction(life, 60_000)
    life.end()
    await databases.abandon(life)
    const twin = lockLater(databases.of(createLife('billing-2', 'billing')), 0)
    await at(500)
    assert.equal(twin.outcome, 'done')
  })
})
