import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { watchFlushes } from '../support/unflushed-writes.ts'
import { assertInvariantsHold } from './invariants.ts'
import { assertSettled, PATIENT, startBurst } from './order-burst.ts'
import { startProgram } from './program.ts'
import { ON_STACK } from './world.ts'

const skip =
  (ON_STACK && 'PostgreSQL and Kafka flush by their own settings') ||
  (process.platform !== 'linux' && 'flushes are watched through /proc')

test('with DATABASE_FLUSH a power cut loses no acknowledged order in any style', {
  skip,
}, async (t) => {
  const parent = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  const folder = await mkdtemp(join(parent, 'trifold-power-'))
  const [live, left] = [join(folder, 'live'), join(folder, 'left')]
  await mkdir(live)
  const watch = watchFlushes(live)
  t.after(async () => {
    watch.end()
    await rm(folder, { recursive: true, force: true })
  })
  const before = await startProgram({ ...PATIENT, DATA_DIR: live, DATABASE_FLUSH: 'true' })
  const burst = await startBurst(before)
  await burst.answered(2)
  const sent = burst.sent.map((one) => ({ ...one }))
  watch.cutPower(left)
  assert.ok(sent.filter(({ answer }) => answer !== undefined).length > 40)
  await before.close()
  await burst.over

  const after = await startProgram({ DATA_DIR: left })
  t.after(() => after.close())
  await assertSettled(after, { ...burst, sent })
  await assertInvariantsHold(after)
})
