import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkHeardOutcomes } from './heard-outcomes.ts'
import type { Tables } from './tables.ts'

const [orderId, profileId, stranger] = ['order', 'customer', 'stranger']

function found(
  state: 'PENDING' | 'APPROVED' | 'CANCELED',
  events: string[],
  accountId = profileId,
) {
  const order = { id: orderId, profileId, state } as Tables['orders'][number]
  const messages = events.map((event, index) => {
    const eventId = `${orderId}/${event}`
    return { id: `${index}`, accountId, event, eventId, created: new Date(index) }
  })
  const tables = { orders: [order], messages } as unknown as Tables
  return checkHeardOutcomes(tables).map(({ sentence }) => sentence)
}

test('accepts notices that end with the outcome of the order', () => {
  assert.deepEqual(found('PENDING', []), [])
  assert.deepEqual(found('APPROVED', ['ORDER_PAID']), [])
  assert.deepEqual(found('CANCELED', ['PAYMENT_FAIL']), [])
  assert.deepEqual(found('CANCELED', ['ORDER_PAID', 'PAYMENT_REFUNDED']), [])
  assert.deepEqual(found('CANCELED', ['PAYMENT_FAIL', 'ORDER_PAID', 'PAYMENT_REFUNDED']), [])
})

test('finds missing notices, a wrong last notice and a wrong order of notices', () => {
  assert.deepEqual(found('CANCELED', []), ['is CANCELED, and its customer heard nothing'])
  assert.equal(found('CANCELED', ['ORDER_PAID']).length, 1)
  assert.equal(found('CANCELED', ['ORDER_PAID', 'PAYMENT_FAIL']).length, 1)
  assert.equal(found('CANCELED', ['PAYMENT_REFUNDED', 'ORDER_PAID']).length, 1)
  assert.equal(found('APPROVED', ['PAYMENT_FAIL', 'ORDER_PAID']).length, 1)
})

test('ignores notices to other customers', () => {
  assert.equal(found('CANCELED', ['PAYMENT_FAIL'], stranger).length, 1)
})
