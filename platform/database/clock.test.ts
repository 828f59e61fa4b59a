import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createDatabaseClock } from './clock.ts'
import type { Queryable } from './database.ts'

test("the database's clock is followed, however the clock of the process is set or jumps", async () => {
  const hour = 3_600_000
  let [time, skew, reads] = [1_000_000_000, hour, 0]
  const db: Queryable = {
    async query<Row>() {
      reads += 1
      return [{ now: new Date(time) }] as Row[]
    },
  }
  const clock = createDatabaseClock({ now: () => time + skew })
  for (const jump of [0, hour, -3 * hour, 25 * hour]) {
    skew += jump
    assert.equal(await clock(db), time)
    time += 500
    assert.equal(await clock(db), time)
  }
  assert.ok(reads <= 4, 'the clock is not read each time')
})

test('a reading that took too long is rejected, and the clock is read again the next time', async () => {
  let [time, frozenMs] = [1_000_000_000, 20_000]
  const db: Queryable = {
    async query<Row>() {
      const now = new Date(time)
      time += frozenMs
      return [{ now }] as Row[]
    },
  }
  const clock = createDatabaseClock({ now: () => time })
  await assert.rejects(clock(db), { name: 'DatabaseError', kind: 'conflict' })
  frozenMs = 10
  assert.ok(time - (await clock(db)) <= frozenMs)
})
