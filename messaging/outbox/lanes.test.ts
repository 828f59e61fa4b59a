import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import fc from 'fast-check'
import { until } from '../../platform/async/until.ts'
import { type Database, DatabaseError } from '../../platform/database/database.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { openTestDatabase } from '../../tests/support/backends.ts'
import { createClock } from '../../tests/support/harness.ts'
import { holdLanes, type LanesOptions, share } from './lanes.ts'
import { LANES, outboxTables, relayMemberPlace } from './outbox.ts'

type Row = { lane: number; holder: string | null }
const all = Array.from({ length: LANES }, (_, lane) => lane)
const heldBy = (holders: readonly (string | null)[]): Row[] =>
  holders.map((holder, lane) => ({ lane, holder }))
const nobody = all.map(() => null)
const others = (...names: string[]) => new Set(names)

describe('a fair share of the lanes', () => {
  test('is all lanes for a single instance', () => {
    assert.deepEqual(share(heldBy(nobody), 'a', others()), all)
  })

  test('is half of the lanes if there is another instance, its own lanes first', () => {
    const holders = ['a', null, null, null, 'a', null, null, 'a']
    assert.deepEqual(share(heldBy(holders), 'a', others('b')), [0, 1, 4, 7])
  })

  test('gives up surplus lanes to a new instance', () => {
    assert.deepEqual(share(heldBy(all.map(() => 'a')), 'a', others('b')), [0, 1, 2, 3])
  })

  test('takes no lanes from live instances', () => {
    assert.deepEqual(share(heldBy(all.map(() => 'a')), 'b', others('a')), [])
  })

  test('takes over the lanes of dead instances', () => {
    const holders = ['a', 'dead', 'a', 'dead', 'b', 'b', 'b', 'b']
    assert.deepEqual(share(heldBy(holders), 'a', others('b')), [0, 1, 2, 3])
  })

  test('is reached by any number of instances, whichever start and stop, with one holder per lane', () => {
    const instances = ['a', 'b', 'c', 'd']
    const step = fc.record({ who: fc.constantFrom(...instances), leaves: fc.boolean() })
    const renew = (rows: readonly Row[], who: string, alive: ReadonlySet<string>): Row[] => {
      const beside = new Set([...alive].filter((one) => one !== who))
      const mine = share(rows, who, beside)
      for (const lane of mine) {
        const { holder } = rows[lane]!
        assert.ok(holder === null || holder === who || !alive.has(holder))
      }
      return rows.map(({ lane, holder }) => {
        const left = holder === who ? null : holder
        return { lane, holder: mine.includes(lane) ? who : left }
      })
    }
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        let rows = heldBy(nobody)
        const alive = new Set<string>()
        for (const { who, leaves } of steps) {
          if (leaves) alive.delete(who)
          else rows = renew(rows, who, alive.add(who))
        }
        if (alive.size === 0) return
        for (let round = 0; round < 3; round += 1) {
          for (const who of alive) rows = renew(rows, who, alive)
        }
        const held = [...alive].map((who) => rows.filter(({ holder }) => holder === who).length)
        assert.equal(
          held.reduce((sum, count) => sum + count, 0),
          LANES,
        )
        assert.ok(Math.max(...held) <= Math.ceil(LANES / alive.size))
      }),
    )
  })
})

const database = await openTestDatabase()
after(() => database.close())
let schemas = 0

/** Instances of one service with the same outbox and the same clock. */
async function setUp(t: { after(work: () => Promise<void>): void }) {
  schemas += 1
  const schema = `lanes_${schemas}`
  await migrate(database, schema, [
    { id: 1, name: 'initial', sql: outboxTables(schema) + relayMemberPlace(schema) },
  ])
  const clock = createClock({ frozen: true, database })
  const { runtime } = clock
  const log = createLog('silent', 'test')
  let open = 0
  const start = (given: Partial<LanesOptions> = {}) => {
    const gains = { count: 0 }
    const lanes = holdLanes({
      database,
      schema,
      runtime,
      log,
      instance: runtime.uuid(),
      soleProcess: false,
      lanesInFlight: () => [],
      onGain: () => {
        gains.count += 1
      },
      ...given,
    })
    open += 1
    const close = async () => {
      open -= 1
      await lanes.close()
    }
    t.after(() => lanes.close())
    return { ...lanes, close, gains }
  }
  /** Advances the clock until the condition holds, each time after all instances have renewed, so no lease expires. */
  const renewed = (condition: () => boolean) =>
    until(() => {
      if (condition()) return true
      if (clock.sleeperCount() === open) clock.advance(2_000)
      return false
    })
  return { clock, schema, start, renewed }
}

describe('instances of a service', () => {
  test('hold all lanes alone, half if there is another instance, and all again when it closes', async (t) => {
    const { start, renewed } = await setUp(t)
    const first = start()
    await until(() => first.held().length === LANES)
    assert.equal(first.gains.count, 1)
    const second = start()
    // Checked together, because a lease can lapse while its renewal is in flight.
    const isHalf = ({ length }: readonly number[]) => length === LANES / 2
    await renewed(() => isHalf(first.held()) && isHalf(second.held()))
    assert.deepEqual([...first.held(), ...second.held()].sort(), all)
    await second.close()
    assert.deepEqual(second.held(), [])
    await renewed(() => first.held().length === LANES)
    assert.equal(first.gains.count, 2)
  })

  test('hand over a lane once none of its rows is in flight, and send no more of its rows until then', async (t) => {
    const { start, renewed } = await setUp(t)
    let inFlight: readonly number[] = [5, 6]
    const first = start({ lanesInFlight: () => inFlight })
    await until(() => first.held().length === LANES)
    const second = start()
    await renewed(() => second.held().length === 2)
    assert.deepEqual(first.held(), [0, 1, 2, 3])
    assert.deepEqual(second.held(), [4, 7])
    inFlight = []
    await renewed(() => second.held().length === LANES / 2)
    assert.deepEqual(second.held(), [4, 5, 6, 7])
  })

  test('take over the lanes of a dead instance once its lease has expired', async (t) => {
    const { start, clock, schema } = await setUp(t)
    const dead = clock.runtime.uuid()
    const until_ = new Date(clock.runtime.now() + 10_000)
    await database.query(`insert into ${schema}.relay_member values ($1, $2)`, [dead, until_])
    await database.query(`update ${schema}.relay_lane set holder = $1`, [dead])
    const heir = start()
    const members = () => database.query(`select id from ${schema}.relay_member`)
    await until(async () => (await members()).length === 2)
    assert.deepEqual(heir.held(), [])
    clock.advance(10_001)
    await until(() => heir.held().length === LANES)
  })

  test('do not wait for the lease to expire if no other process can use the database', async (t) => {
    const { start, clock, schema } = await setUp(t)
    const dead = clock.runtime.uuid()
    const until_ = new Date(clock.runtime.now() + 10_000)
    await database.query(`insert into ${schema}.relay_member values ($1, $2)`, [dead, until_])
    await database.query(`update ${schema}.relay_lane set holder = $1`, [dead])
    const heir = start({ soleProcess: true })
    await until(() => heir.held().length === LANES)
  })

  test('take over at once from an instance with the same place, and from no other', async (t) => {
    const { start, clock, schema } = await setUp(t)
    const [gone, elsewhere] = [clock.runtime.uuid(), clock.runtime.uuid()]
    await database.query(
      `insert into ${schema}.relay_member (id, until, place)
       select id, now() + interval '10 s', place
       from unnest($1::uuid[], $2::text[]) as member (id, place)`,
      [
        [gone, elsewhere],
        ['host-1', 'host-2'],
      ],
    )
    await database.query(
      `update ${schema}.relay_lane set holder = case when lane < 4 then $1::uuid else $2::uuid end`,
      [gone, elsewhere],
    )
    const heir = start({ place: 'host-1' })
    await until(() => heir.held().length > 0)
    assert.deepEqual(heir.held(), [0, 1, 2, 3])
  })

  test('share the lanes if they have the same place by mistake', async (t) => {
    const { start, renewed } = await setUp(t)
    const first = start({ place: 'host' })
    await until(() => first.held().length === LANES)
    const second = start({ place: 'host' })
    const isHalf = ({ length }: readonly number[]) => length === LANES / 2
    await renewed(() => isHalf(first.held()) && isHalf(second.held()))
    assert.deepEqual([...first.held(), ...second.held()].sort(), all)
  })

  test('free their lanes ten seconds after they die, even if their own clock was wrong', async (t) => {
    const { start, clock, schema } = await setUp(t)
    const anHourAhead = {
      ...clock.runtime,
      now: () => clock.runtime.now() + 3_600_000,
    }
    let dies = false
    const dead = start({
      runtime: anHourAhead,
      database: {
        ...database,
        transaction: (work) =>
          dies
            ? Promise.reject(new DatabaseError('it is dead', 'unavailable'))
            : database.transaction(work),
      },
    })
    await until(() => dead.held().length === LANES)
    dies = true
    const heir = start()
    const members = () => database.query(`select id from ${schema}.relay_member`)
    await until(async () => (await members()).length === 2)
    clock.advance(10_001)
    await until(() => heir.held().length === LANES)
  })

  test('keep their lanes when their own clock jumps', async (t) => {
    const { start, clock } = await setUp(t)
    let jumpMs = 0
    const lanes = start({ runtime: { ...clock.runtime, now: () => clock.runtime.now() + jumpMs } })
    await until(() => lanes.held().length === LANES)
    jumpMs = 3_600_000
    assert.equal(lanes.held().length, LANES)
  })

  test('hold no lanes after failing to renew their lease in time', async (t) => {
    const { start, clock } = await setUp(t)
    let away = false
    const unsteady: Database = {
      ...database,
      transaction: (work) =>
        away
          ? Promise.reject(new DatabaseError('the server is away', 'unavailable'))
          : database.transaction(work),
    }
    const lanes = start({ database: unsteady })
    await until(() => lanes.held().length === LANES)
    away = true
    clock.advance(9_999)
    assert.equal(lanes.held().length, LANES)
    clock.advance(1)
    assert.deepEqual(lanes.held(), [])
    away = false
    await until(() => {
      clock.advance(2_000)
      return lanes.held().length === LANES
    })
  })
})
