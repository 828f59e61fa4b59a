import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { STYLES } from '../../contracts/style.ts'
import { type Run, simulate } from './run.ts'
import type { Store } from './servers/empty-store.ts'
import { openStore } from './servers/store.ts'

/** A small sample of the seeds that `npm run simulate` can run. */
const SEEDS_PER_STYLE = 12
const TIMEOUT = { timeout: 300_000 }

let store: Store
before(async () => {
  store = await openStore()
}, TIMEOUT)
after(() => store.close())

for (const style of [...STYLES, 'mixed'] as const) {
  test(`loses and duplicates nothing, whatever fails, in ${style}`, TIMEOUT, async () => {
    for (let seed = 1; seed <= SEEDS_PER_STYLE; seed += 1) {
      const { violations, operations } = await simulate(store, { seed, style })
      assert.deepEqual(violations, [], `seed ${seed}`)
      assert.ok(operations > 0)
    }
  })
}

const RUN: Run = { seed: 4_711, style: 'mixed', profile: 'storm' }

test('a seed gives the same run byte for byte, whatever ran before it', TIMEOUT, async () => {
  const first = await simulate(store, RUN)
  await simulate(store, { ...RUN, seed: 4_712 })
  const second = await simulate(store, RUN)
  assert.ok(first.faults.length > 10 && first.events > 300)
  assert.deepEqual(second, first)
  const other = await openStore()
  const elsewhere = await simulate(other, RUN)
  await other.close()
  assert.deepEqual(elsewhere, first)
})

test('the scheduler waits until all code has come to rest', TIMEOUT, async () => {
  const usual = await simulate(store, RUN)
  const patient = await simulate(store, { ...RUN, turns: 25 })
  assert.equal(patient.fingerprint, usual.fingerprint)
})

test('a fault that is left out does not happen', TIMEOUT, async () => {
  const { faults } = await simulate(store, RUN)
  const [name = ''] = faults
  const without = await simulate(store, { ...RUN, without: new Set([name]) })
  assert.ok(!without.faults.includes(name))
})
