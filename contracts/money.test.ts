import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { MAX_AMOUNT_MINOR, MAX_BALANCE_MINOR, parseAmount, toMinor, toUnits } from './money.ts'

const amountMinor = fc.bigInt({ min: 1n, max: MAX_AMOUNT_MINOR })

describe('parseAmount', () => {
  test('reads back every amount, as a number and as text', () => {
    fc.assert(
      fc.property(amountMinor, (minor) => {
        assert.equal(parseAmount(toUnits(minor)), minor)
        assert.equal(parseAmount(String(toUnits(minor))), minor)
        assert.equal(parseAmount(JSON.parse(JSON.stringify(toUnits(minor)))), minor)
        assert.equal(parseAmount(plain(minor)), minor)
        assert.equal(toMinor(toUnits(minor)), minor)
      }),
    )
  })

  test('accepts the smallest and the largest amount', () => {
    assert.equal(parseAmount(0.01), 1n)
    assert.equal(parseAmount('1.5'), 150n)
    assert.equal(parseAmount('007.10'), 710n)
    assert.equal(parseAmount(1_000_000_000), MAX_AMOUNT_MINOR)
  })

  test('rejects more than two decimals', () => {
    for (const value of [0.001, 1.005, '1.000', '0.010', 0.1 + 0.2, 1e-7, 5e-324]) {
      assert.equal(parseAmount(value), 'must have at most two decimals', String(value))
    }
  })

  test('rejects zero and negative amounts', () => {
    const values = [0, -0, '0', '0.00', -1, -0.001, '-5', '-1e-7', -Infinity, -1e21, '-Infinity']
    for (const value of values) {
      assert.equal(parseAmount(value), 'must be greater than zero', String(value))
    }
  })

  test('rejects amounts above the maximum', () => {
    for (const value of [1_000_000_000.01, '1000000000.01', 1e15, 1e16, 1e21, Infinity, 2 ** 53]) {
      assert.equal(parseAmount(value), 'must be at most 1000000000', String(value))
    }
  })

  test('rejects text that is not a plain decimal number', () => {
    const texts = ['1e3', '1e-3', '.5', '5.', '+5', ' 5', '5\n', '0x10', '1,5', '1_000', '٣', 'abc']
    for (const value of [NaN, 'NaN', ...texts]) {
      assert.equal(parseAmount(value), 'must be a decimal number', String(value))
    }
    assert.equal(typeof parseAmount(''), 'string')
  })

  test('never accepts a number that it cannot represent exactly', () => {
    fc.assert(
      fc.property(fc.double(), (units) => {
        const minor = parseAmount(units)
        if (typeof minor === 'bigint') assert.equal(toUnits(minor), units)
        else assert.throws(() => toMinor(units), RangeError)
      }),
    )
  })

  test('never reads a text as a different amount', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'0123456789.-+eE ') }), (text) => {
        const minor = parseAmount(text)
        if (typeof minor === 'bigint') assert.equal(toUnits(minor), Number(text))
      }),
    )
  })
})

describe('toUnits', () => {
  test('prints every balance exactly, with at most two decimals', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: MAX_BALANCE_MINOR }), (minor) => {
        assert.equal(String(toUnits(minor)), plain(minor))
      }),
      { examples: [[0n], [1n], [MAX_BALANCE_MINOR - 1n], [MAX_BALANCE_MINOR]] },
    )
  })

  test('maps adjacent balances to distinct numbers up to the largest one', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 1n, max: MAX_BALANCE_MINOR }), (minor) => {
        assert.notEqual(toUnits(minor), toUnits(minor - 1n))
      }),
      { examples: [[MAX_BALANCE_MINOR]] },
    )
  })
})

/** The shortest decimal text of minor units, computed with integers only. */
function plain(minor: bigint): string {
  const decimals = String(minor % 100n)
    .padStart(2, '0')
    .replace(/0+$/, '')
  return `${minor / 100n}${decimals && `.${decimals}`}`
}
