import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { lowerUuids } from './uuid.ts'

describe('lowerUuids', () => {
  test('changes UUIDs at any depth to lower case', () => {
    fc.assert(
      fc.property(fc.uuid(), (id) => {
        const upper = id.toUpperCase()
        assert.deepEqual(lowerUuids({ a: upper, b: [{ c: upper }, upper] }), {
          a: id,
          b: [{ c: id }, id],
        })
      }),
    )
  })

  test('leaves everything else as it is', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const parsed = JSON.parse(JSON.stringify(value))
        assert.deepEqual(lowerUuids(parsed), parsed)
      }),
    )
    const near = ['A', '{01997A4E-3B52-7D10-8E6F-6A1C2B3D4E5F}', '01997A4E3B527D108E6F6A1C2B3D4E5F']
    assert.deepEqual(lowerUuids(near), near)
  })

  test('keeps __proto__ as a field, so that a closed schema can reject it', () => {
    const input = JSON.parse('{"__proto__":{"admin":true}}')
    const output = lowerUuids(input)
    assert.deepEqual(Object.keys(output), ['__proto__'])
    assert.equal(output.admin, undefined)
  })

  test('does not change its input', () => {
    const input = Object.freeze({ id: '01997A4E-3B52-7D10-8E6F-6A1C2B3D4E5F' })
    assert.equal(lowerUuids(input).id, input.id.toLowerCase())
  })
})
