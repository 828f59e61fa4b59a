import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  decodeEvent,
  EVENTS,
  type Event,
  type EventMeta,
  type EventName,
  eventHeaders,
  isReason,
  REASONS,
  type Reason,
} from './events.ts'
import { toUnits } from './money.ts'
import { STYLES } from './style.ts'

const names = Object.keys(EVENTS) as EventName[]
const orderId = '01997a4e-5c80-7f21-a2b3-c4d5e6f70819'
const accountId = '01997a4e-3b52-7d10-8e6f-6a1c2b3d4e5f'

// The fields of the published contract, written out here because strict readers reject any other set of
// fields.
const FIELDS: Record<EventName, readonly string[]> = {
  ORDER_CREATED: ['event', 'orderId', 'accountId', 'price'],
  DEPOSIT_REQUEST: ['event', 'accountId', 'value'],
  ORDER_CANCELED: ['event', 'orderId', 'accountId'],
  ORDER_PAID: ['event', 'orderId', 'accountId'],
  PAYMENT_FAIL: ['event', 'orderId', 'accountId'],
  DEPOSIT_ACCEPTED: ['event', 'accountId', 'value'],
  PAYMENT_REFUNDED: ['event', 'orderId', 'accountId', 'value'],
}

describe('the events', () => {
  test('have exactly the fields of the published contract', () => {
    for (const name of names) {
      assert.deepEqual(Object.keys(EVENTS[name].schema.properties), FIELDS[name])
      assert.deepEqual(EVENTS[name].schema.required, FIELDS[name])
      assert.ok('additionalProperties' in EVENTS[name].schema)
      assert.equal(EVENTS[name].schema.additionalProperties, false)
    }
  })

  test('write ORDER_CREATED as its published bytes', () => {
    const body: Event = { event: 'ORDER_CREATED', orderId, accountId, price: 195 }
    const text = `{"event":"ORDER_CREATED","orderId":"${orderId}","accountId":"${accountId}","price":195}`
    assert.equal(JSON.stringify(body), text)
    assert.deepEqual(decode('billing', text), { body, meta: { id: 'billing/3/42' } })
  })

  test('are read back with all of their fields and headers', () => {
    fc.assert(
      fc.property(anyEvent, anyMeta, (body, meta) => {
        const headers = eventHeaders(body.event, 'billing', 1_768_469_400_000, meta)
        const { topic } = EVENTS[body.event]
        assert.deepEqual(decode(topic, JSON.stringify(body), headers), { body, meta })
      }),
    )
  })

  test('show when order sent them', () => {
    const headers = eventHeaders('PAYMENT_FAIL', 'order', 1_768_469_400_000, { id: 'an-id' })
    const read = decode('payment', JSON.stringify(bodyOf('PAYMENT_FAIL')), headers)
    assert.ok(typeof read === 'object' && 'meta' in read)
    assert.deepEqual(read.meta, { id: 'an-id', isFromOrder: true })
  })

  test('are identified by their position if they have no headers', () => {
    for (const name of names) {
      const { topic } = EVENTS[name]
      const expected = { body: bodyOf(name), meta: { id: `${topic}/3/42` } }
      assert.deepEqual(decode(topic, JSON.stringify(bodyOf(name))), expected)
      assert.deepEqual(decode(topic, JSON.stringify(bodyOf(name)), { ce_id: '' }), expected)
    }
  })

  test('are identified by their position and the incarnation of the topic if the topic was recreated', () => {
    const value = new TextEncoder().encode(JSON.stringify(bodyOf('ORDER_PAID')))
    const at = { topic: 'payment', partition: 3, offset: 42n, value }
    for (const [incarnation, headers, id] of [
      ['', {}, 'payment/3/42'],
      ['AbC-9', {}, 'payment/3/42/AbC-9'],
      ['AbC-9', { ce_id: 'its-own' }, 'its-own'],
    ] as const) {
      const read = decodeEvent({ ...at, incarnation, headers })
      assert.deepEqual(read, { body: bodyOf('ORDER_PAID'), meta: { id } })
    }
  })

  test('are read without the headers that have no known meaning', () => {
    const headers = { 'x-interaction-style': 'constructor', 'x-reason': 'toString', other: '1' }
    const read = decode('payment', JSON.stringify(bodyOf('PAYMENT_FAIL')), headers)
    assert.deepEqual(read, { body: bodyOf('PAYMENT_FAIL'), meta: { id: 'payment/3/42' } })
  })

  test('are read with UUIDs in lower case', () => {
    const read = decode(
      'payment',
      JSON.stringify({ ...bodyOf('ORDER_PAID'), orderId: orderId.toUpperCase() }),
    )
    assert.deepEqual(read, { body: bodyOf('ORDER_PAID'), meta: { id: 'payment/3/42' } })
  })
})

describe('a message that can never succeed', () => {
  for (const name of names) {
    test(`is ${name} without one of its fields, or on another topic`, () => {
      const { topic } = EVENTS[name]
      for (const field of FIELDS[name].slice(1)) {
        const { [field]: _, ...rest } = bodyOf(name) as unknown as Record<string, unknown>
        assert.match(poison(topic, rest), new RegExp(`^${name} .*\\b${field}\\b`))
      }
      for (const other of ['billing', 'payment', 'balance'].filter((one) => one !== topic)) {
        assert.equal(poison(other, bodyOf(name)), `${name} does not belong on topic ${other}`)
      }
    })
  }

  test('has a field of the wrong type', () => {
    const paid = bodyOf('ORDER_PAID')
    for (const orderId of [
      null,
      1,
      '',
      'x',
      `urn:uuid:${accountId}`,
      ` ${accountId}`,
      [accountId],
    ]) {
      assert.match(poison('payment', { ...paid, orderId }), /^ORDER_PAID\/orderId /)
    }
  })

  test('has money that is not a positive amount with at most two decimals', () => {
    for (const price of [0, -1, 0.001, 1.005, 1e-7, 1_000_000_000.01, 1e21, '65', null, [65]]) {
      const body = { ...bodyOf('ORDER_CREATED'), price }
      assert.match(poison('billing', body), /^ORDER_CREATED\/price must (be|have) /, String(price))
    }
    const huge = JSON.stringify(bodyOf('DEPOSIT_REQUEST')).replace(':199', ':1e999')
    assert.match(String(decode('billing', huge)), /^DEPOSIT_REQUEST\/value must be /)
  })

  test('has no body, or one that is not JSON in UTF-8', () => {
    assert.equal(read('billing', null), 'the message has no body')
    assert.match(String(read('billing', new Uint8Array())), /^the body is not JSON: /)
    assert.match(
      String(read('billing', Uint8Array.of(0x22, 0xff, 0x22))),
      /^the body is not JSON: /,
    )
    assert.match(String(decode('billing', '{"event":')), /^the body is not JSON: /)
    assert.match(String(decode('billing', '['.repeat(60_000))), /^the body is not JSON: /)
  })

  test('does not name an event', () => {
    const nameless = [null, 1, true, 'x', [], {}, { event: 1 }, { event: ['ORDER_PAID'] }]
    for (const body of [...nameless, { event: '' }, { event: 'X'.repeat(101) }]) {
      assert.equal(poison('payment', body), 'the body names no event')
    }
  })

  test('is larger than any event and is rejected without being parsed', () => {
    const fields = Array.from({ length: 60_000 }, (_, n) => [`field${n}`, n])
    const body = { ...bodyOf('ORDER_PAID'), ...Object.fromEntries(fields) }
    const text = JSON.stringify(body)
    assert.ok(text.length > 869_000)
    assert.match(
      String(decode('payment', text)),
      /^the body has \d+ bytes, but an event has at most 65536$/,
    )
    assert.ok(fastestMs(() => decode('payment', text)) < 10)
  })

  test('is rejected within 10 ms even at the largest size that is parsed', () => {
    const full = (start: string, piece: string, end: string) =>
      start + piece.repeat((65_536 - start.length - end.length) / piece.length) + end
    const paid = '{"event":"ORDER_PAID","accountId":1'
    const { length } = JSON.stringify(bodyOf('ORDER_PAID'))
    const texts = [
      full(`${paid},"orderId":`, '[', ''),
      full(`${paid},"orderId":[`, '1,', '1]}'),
      full(`${paid},"orderId":"`, 'a', '"}'),
      `${full(`${paid},"deep":`, '[', '')}`.slice(0, 32_000) + ']'.repeat(31_000),
      full('{"event":"', 'a', '"}'),
      full('', '[', ''),
      full(paid, `,"${'f'.repeat(length)}":1`, '}'),
      full(paid, `,"f${'\\u0000'.repeat(10)}":1`, '}'),
    ]
    for (const text of texts) {
      assert.ok(text.length <= 65_536)
      assert.equal(typeof decode('payment', text), 'string', text.slice(0, 60))
      assert.ok(fastestMs(() => decode('payment', text)) < 10, text.slice(0, 60))
    }
  })

  test('gets a sentence as its reason, whatever its bytes are', () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array(), fc.json().map(encode)), (value) => {
        assert.equal(typeof read('payment', value), 'string')
      }),
    )
  })
})

describe('a message from a newer version', () => {
  test('is read without the unknown fields, and their names are returned', () => {
    for (const name of names) {
      const { topic } = EVENTS[name]
      const body = { ...bodyOf(name), extra: { a: [1] }, note: 'x' }
      const expected = {
        body: bodyOf(name),
        meta: { id: `${topic}/3/42` },
        unknownFields: ['extra', 'note'],
      }
      assert.deepEqual(decode(topic, JSON.stringify(body)), expected)
    }
  })

  test('is an unknown event, whatever its other fields and headers are', () => {
    const body = { event: 'ORDER_SHIPPED', orderId: 17 }
    const read = decode('payment', JSON.stringify(body), { ce_id: 'two words' })
    assert.deepEqual(read, { unknownEvent: 'ORDER_SHIPPED' })
    for (const event of ['constructor', '__proto__', 'toString', 'hasOwnProperty', 'order_paid']) {
      const unknown = decode('billing', JSON.stringify({ event }))
      assert.deepEqual(unknown, { unknownEvent: event })
    }
  })
})

describe('isReason', () => {
  test('accepts the reasons, and no property that every object has', () => {
    assert.ok(Object.keys(REASONS).every(isReason))
    for (const other of ['constructor', '__proto__', '', undefined, null, 1]) {
      assert.equal(isReason(other), false)
    }
  })
})

const uuid = fc.uuid()
const money = fc.bigInt({ min: 1n, max: 100_000_000_000n }).map(toUnits)
const anyEvent: fc.Arbitrary<Event> = fc
  .record({ name: fc.constantFrom(...names), orderId: uuid, accountId: uuid, money })
  .map(({ name, orderId, accountId, money }) => {
    const all: Record<string, unknown> = {
      event: name,
      orderId,
      accountId,
      price: money,
      value: money,
    }
    return Object.fromEntries(FIELDS[name].map((field) => [field, all[field]])) as unknown as Event
  })
const anyMeta: fc.Arbitrary<EventMeta> = fc.record(
  {
    id: uuid,
    style: fc.constantFrom(...STYLES),
    reason: fc.constantFrom(...(Object.keys(REASONS) as Reason[])),
    traceparent: fc.constant('00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'),
  },
  { requiredKeys: ['id'], noNullPrototype: true },
)

function bodyOf(name: EventName): Event {
  const all: Record<string, unknown> = { event: name, orderId, accountId, price: 195, value: 199 }
  return Object.fromEntries(FIELDS[name].map((field) => [field, all[field]])) as unknown as Event
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

function decode(topic: string, text: string, headers: Record<string, string> = {}) {
  return read(topic, encode(text), headers)
}

function read(topic: string, value: Uint8Array | null, headers: Record<string, string> = {}) {
  return decodeEvent({ topic, partition: 3, offset: 42n, value, headers })
}

function poison(topic: string, body: unknown): string {
  const read = decode(topic, JSON.stringify(body))
  assert.equal(typeof read, 'string', `${JSON.stringify(body)} was read`)
  return read as string
}

/**
 * The time of the fastest of ten runs, in milliseconds. The fastest run is the least affected by other load
 * on the machine.
 */
function fastestMs(work: () => unknown): number {
  const times = Array.from({ length: 10 }, () => {
    const start = performance.now()
    work()
    return performance.now() - start
  })
  return Math.min(...times)
}
