import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DatabaseError } from '../database/database.ts'
import { type CoalesceOptions, coalesce, inTurn, shared } from './coalesce.ts'
import { until } from './until.ts'

/** Doubles numbers in batches, which end when `openAll` is called. A batch with a `bad` item fails. */
function doubling(given: Partial<CoalesceOptions<number, number>> = {}, bad: number[] = []) {
  const batches: number[][] = []
  const gates: (() => void)[] = []
  let open = false
  const double = coalesce<number, number>({
    maxBatch: 100,
    maxQueue: 100,
    overflow: () => new Error('too many'),
    async run(items) {
      batches.push([...items])
      if (!open) await new Promise<void>((resolve) => gates.push(resolve))
      const failing = items.filter((item) => bad.includes(item))
      if (failing.length > 0) throw new Error(`cannot double ${failing.join()}`)
      return items.map((item) => item * 2)
    },
    ...given,
  })
  return {
    double,
    batches,
    openAll() {
      open = true
      for (const gate of gates) gate()
    },
  }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

describe('concurrent requests', () => {
  test('that arrive together share one batch in their order, and each gets its own result', async () => {
    const { double, batches, openAll } = doubling()
    openAll()
    assert.deepEqual(await Promise.all([3, 1, 2].map((item) => double(item))), [6, 2, 4])
    assert.deepEqual(batches, [[3, 1, 2]])
  })

  test('that arrive while a batch runs form the next batch', async () => {
    const { double, batches, openAll } = doubling()
    const first = double(1)
    await turn()
    const later = [2, 3, 4].map((item) => double(item))
    await turn()
    assert.deepEqual(batches, [[1]])
    openAll()
    assert.deepEqual(await Promise.all([first, ...later]), [2, 4, 6, 8])
    assert.deepEqual(batches, [[1], [2, 3, 4]])
  })

  test('fill batches of at most the largest size', async () => {
    const { double, batches, openAll } = doubling({ maxBatch: 2 })
    openAll()
    await Promise.all([1, 2, 3, 4, 5].map((item) => double(item)))
    assert.deepEqual(batches, [[1, 2], [3, 4], [5]])
  })

  test('are rejected at once while the queue is full, and the others succeed', async () => {
    const { double, openAll } = doubling({ maxQueue: 2 })
    const first = double(1)
    await turn()
    const waiting = [2, 3].map((item) => double(item))
    await assert.rejects(double(4), /too many/)
    openAll()
    assert.deepEqual(await Promise.all([first, ...waiting]), [2, 4, 6])
    assert.equal(await double(5), 10)
  })
})

describe('an item whose caller', () => {
  const caller = (isExpired: () => boolean) => ({ isExpired })

  test('gave up before its batch started is rejected and does not run', async () => {
    const { double, batches, openAll } = doubling({ maxBatch: 2 })
    const first = double(1)
    await turn()
    let isExpired = false
    const results = Promise.allSettled([
      double(
        2,
        caller(() => true),
      ),
      double(
        3,
        caller(() => isExpired),
      ),
      double(4),
      double(
        5,
        caller(() => false),
      ),
    ])
    isExpired = true
    openAll()
    assert.equal(await first, 2)
    const settled = (await results).map((result) =>
      result.status === 'fulfilled' ? result.value : (result.reason as Error).message,
    )
    assert.deepEqual(settled, ['too many', 'too many', 8, 10])
    assert.deepEqual(batches, [[1], [4, 5]])
  })

  test('gave up does not cause an empty batch', async () => {
    const { double, batches, openAll } = doubling()
    openAll()
    await assert.rejects(
      double(
        1,
        caller(() => true),
      ),
      /too many/,
    )
    assert.deepEqual(batches, [])
    assert.equal(await double(2), 4)
  })
})

describe('a batch that fails', () => {
  test('is split until only the bad items fail', async () => {
    const { double, batches, openAll } = doubling({}, [3, 6])
    openAll()
    const results = await Promise.allSettled([1, 2, 3, 4, 5, 6, 7].map((item) => double(item)))
    const settled = results.map((result) =>
      result.status === 'fulfilled' ? result.value : (result.reason as Error).message,
    )
    assert.deepEqual(settled, [2, 4, 'cannot double 3', 8, 10, 'cannot double 6', 14])
    assert.ok(batches.length <= 13)
  })

  test('fails as a whole if the database is unavailable, because parts of the batch would fail as well', async () => {
    const batches: number[] = []
    const run = coalesce<number, number>({
      maxBatch: 100,
      maxQueue: 100,
      overflow: () => new Error('too many'),
      async run(items) {
        batches.push(items.length)
        throw new DatabaseError('the server is away', 'unavailable')
      },
    })
    const results = await Promise.allSettled([1, 2, 3, 4].map((item) => run(item)))
    assert.ok(results.every(({ status }) => status === 'rejected'))
    assert.deepEqual(batches, [4])
  })

  test('does not affect later items', async () => {
    const { double, openAll } = doubling({}, [1])
    openAll()
    await assert.rejects(double(1), /cannot double 1/)
    assert.equal(await double(2), 4)
  })
})

test('shared: concurrent calls share one run of the work, and later calls start another', async () => {
  let runs = 0
  const run = shared(async () => {
    runs += 1
    if (runs === 2) throw new Error('the second run fails')
    return runs
  })
  assert.deepEqual(await Promise.all([run(), run(), run()]), [1, 1, 1])
  await assert.rejects(run(), /the second run fails/)
  assert.equal(await run(), 3)
})

test('inTurn: calls that arrive during a run share the next one, even if the run fails', async () => {
  const ends: (() => void)[] = []
  const run = inTurn(async () => {
    const end = Promise.withResolvers<void>()
    const nth = ends.push(end.resolve)
    await end.promise
    if (nth === 1) throw new Error('the first run fails')
    return nth
  })
  const first = run()
  await until(async () => ends.length === 1, { limitMs: 5_000 })
  const later = [run(), run()]
  ends[0]!()
  await assert.rejects(first, /the first run fails/)
  await until(async () => ends.length === 2, { limitMs: 5_000 })
  ends[1]!()
  assert.deepEqual(await Promise.all(later), [2, 2])
})
