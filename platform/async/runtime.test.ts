import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { backoffMs, systemRuntime, uuidV7 } from './runtime.ts'

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const epochMs = fc.integer({ min: 0, max: 2 ** 48 - 2 })
const randomBytes = fc.uint8Array({ minLength: 10, maxLength: 10 })

describe('uuidV7', () => {
  test('has the format of RFC 9562 and starts with its time', () => {
    fc.assert(
      fc.property(epochMs, randomBytes, (time, random) => {
        const id = uuidV7(time, random)
        assert.match(id, UUID_V7)
        assert.equal(Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16), time)
      }),
    )
  })

  test('matches the example of RFC 9562', () => {
    const random = Uint8Array.of(0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f)
    assert.equal(uuidV7(0x017f22e279b0, random), '017f22e2-79b0-7cc3-98c4-dc0c0c07398f')
  })

  test('ascends with time, whatever the random bits are', () => {
    fc.assert(
      fc.property(epochMs, randomBytes, randomBytes, (time, first, second) => {
        assert.ok(uuidV7(time, first) < uuidV7(time + 1, second))
      }),
    )
  })

  test('has 74 random bits, each of which changes the id', () => {
    const zeros = uuidV7(0, new Uint8Array(10))
    let bits = 0
    for (let bit = 0; bit < 80; bit++) {
      const random = new Uint8Array(10)
      random[bit >> 3] = 1 << (bit & 7)
      if (uuidV7(0, random) !== zeros) bits++
    }
    assert.equal(bits, 74)
  })
})

describe('backoffMs', () => {
  test('is between half of the doubled base and all of it, but at most the cap', () => {
    const attempt = fc.nat({ max: 1_000 })
    const durationMs = fc.integer({ min: 1, max: 3_600_000 })
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    fc.assert(
      fc.property(attempt, durationMs, durationMs, random, (attempt, baseMs, maxMs, random) => {
        const fullMs = Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 20))
        const waitMs = backoffMs(attempt, baseMs, maxMs, random)
        assert.ok(Number.isSafeInteger(waitMs))
        assert.ok(waitMs >= fullMs / 2 && waitMs <= fullMs && waitMs >= 1, String(waitMs))
      }),
    )
  })

  test('doubles from attempt to attempt until the cap', () => {
    const waits = [0, 1, 2, 3, 4, 5].map((attempt) => backoffMs(attempt, 100, 1_000, 0))
    assert.deepEqual(waits, [50, 100, 200, 400, 500, 500])
  })
})

describe('systemRuntime', () => {
  test('generates distinct, valid ids', () => {
    const ids = Array.from({ length: 1_000 }, () => systemRuntime.uuid())
    assert.equal(new Set(ids).size, ids.length)
    for (const id of ids) assert.match(id, UUID_V7)
  })

  test('sleeps at least as long as requested', async () => {
    const start = performance.now()
    await systemRuntime.sleep(20)
    // Timers count whole milliseconds, so the sleep may be up to a millisecond shorter.
    assert.ok(performance.now() - start >= 19)
  })

  test('wakes at once when its signal aborts, before or during the sleep', async () => {
    await systemRuntime.sleep(3_600_000, AbortSignal.abort())
    const controller = new AbortController()
    const asleep = systemRuntime.sleep(3_600_000, controller.signal)
    controller.abort()
    await asleep
  })
})
