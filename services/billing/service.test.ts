import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { decodeEvent, eventHeaders } from '../../contracts/events.ts'
import { until } from '../../platform/async/until.ts'
import { startBilling } from '../../tests/support/billing-service.ts'
import { sendBare } from '../../tests/support/harness.ts'

const {
  bus,
  call,
  wire,
  on,
  announced,
  handled,
  firstDeadLetter,
  deadLetters,
  openAccount,
  ...of
} = await startBilling()
const { balanceOf, entriesOf } = of
const newId = () => crypto.randomUUID()

describe('ORDER_CREATED from any program', () => {
  test('takes the price and is answered with ORDER_PAID, exactly as the contract says', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    await sendBare(bus, 'billing', { event: 'ORDER_CREATED', orderId, accountId, price: 195 })
    const { text, headers } = await announced(accountId, 'ORDER_PAID')
    assert.equal(text, JSON.stringify({ event: 'ORDER_PAID', orderId, accountId }))
    const { ce_time: time, ...fixed } = headers
    assert.deepEqual(fixed, {
      ce_id: `${orderId}/ORDER_PAID`,
      ce_type: 'ORDER_PAID',
      ce_source: '/trifold/billing',
      ce_specversion: '1.0',
      'content-type': 'application/json',
      'x-interaction-style': 'events',
      'x-amount': '195',
    })
    assert.equal(new Date(time!).toISOString(), time)
    assert.equal(await balanceOf(accountId), 305)
  })

  test('takes nothing when it is repeated, and is answered with the same event', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    const body = { event: 'ORDER_CREATED', orderId, accountId, price: 195 }
    for (let n = 0; n < 3; n += 1) await sendBare(bus, 'billing', body)
    await announced(accountId, 'ORDER_PAID', 3)
    const ids = on('payment', accountId).map(({ headers }) => headers.ce_id)
    assert.deepEqual(ids.slice(-3), Array(3).fill(`${orderId}/ORDER_PAID`))
    assert.equal(await balanceOf(accountId), 305)
    assert.equal((await entriesOf(accountId)).length, 2)
  })

  test('takes nothing if the balance is too low, and is answered with PAYMENT_FAIL', async () => {
    const [accountId, orderId] = [await openAccount(194.99), newId()]
    await sendBare(bus, 'billing', { event: 'ORDER_CREATED', orderId, accountId, price: 195 })
    const { text, headers } = await announced(accountId, 'PAYMENT_FAIL')
    assert.equal(text, JSON.stringify({ event: 'PAYMENT_FAIL', orderId, accountId }))
    assert.equal(headers['x-reason'], 'NOT_ENOUGH_MONEY')
    assert.equal(await balanceOf(accountId), 194.99)
  })

  test('is answered with PAYMENT_FAIL and a reason if the account does not exist', async () => {
    const [accountId, orderId] = [newId(), newId()]
    await sendBare(bus, 'billing', { event: 'ORDER_CREATED', orderId, accountId, price: 195 })
    const { headers } = await announced(accountId, 'PAYMENT_FAIL')
    assert.equal(headers['x-reason'], 'ACCOUNT_NOT_FOUND')
  })

  test('means the same order and account if its ids are in upper case', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    const body = { event: 'ORDER_CREATED', orderId: orderId.toUpperCase(), price: 195 }
    await sendBare(bus, 'billing', { ...body, accountId: accountId.toUpperCase() })
    await until(async () => (await balanceOf(accountId)) === 305)
    assert.equal((await call('GET', `/billing/payments/${orderId}`)).body.state, 'PAID')
  })

  test('becomes a dead letter and transfers nothing if its price differs from the stored payment', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    const body = { event: 'ORDER_CREATED', orderId, accountId, price: 195 }
    await sendBare(bus, 'billing', body)
    await sendBare(bus, 'billing', { ...body, price: 196 })
    const { reason, value } = await firstDeadLetter(accountId)
    assert.match(reason, /PAYMENT_MISMATCH/)
    assert.equal(JSON.parse(new TextDecoder().decode(value)).price, 196)
    assert.equal(await balanceOf(accountId), 305)
  })

  test('pays as many orders as the balance covers, in the sequence of the messages', async () => {
    const accountId = await openAccount(195 * 4 + 100)
    const orders = Array.from({ length: 10 }, newId)
    for (const orderId of orders) {
      await sendBare(bus, 'billing', { event: 'ORDER_CREATED', orderId, accountId, price: 195 })
    }
    await announced(accountId, 'PAYMENT_FAIL', 6)
    const outcomes = on('payment', accountId)
      .filter(({ body }) => body.event !== 'DEPOSIT_ACCEPTED')
      .map(({ body }) => [body.orderId, body.event])
    assert.deepEqual(
      outcomes,
      orders.map((orderId, n) => [orderId, n < 4 ? 'ORDER_PAID' : 'PAYMENT_FAIL']),
    )
    assert.equal(await balanceOf(accountId), 100)
  })
})

describe('ORDER_CANCELED from any program', () => {
  const created = (orderId: string, accountId: string) => ({
    event: 'ORDER_CREATED',
    orderId,
    accountId,
    price: 195,
  })
  const canceled = (orderId: string, accountId: string) => ({
    event: 'ORDER_CANCELED',
    orderId,
    accountId,
  })

  test('refunds a payment once, and is answered with PAYMENT_REFUNDED each time', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    await sendBare(bus, 'billing', created(orderId, accountId))
    for (let n = 0; n < 2; n += 1) await sendBare(bus, 'billing', canceled(orderId, accountId))
    const { text, headers } = await announced(accountId, 'PAYMENT_REFUNDED', 2)
    const body = { event: 'PAYMENT_REFUNDED', orderId, accountId, value: 195 }
    assert.equal(text, JSON.stringify(body))
    assert.equal(headers.ce_id, `${orderId}/PAYMENT_REFUNDED`)
    assert.deepEqual(
      (await entriesOf(accountId)).map(({ kind, amount }) => [kind, amount]),
      [
        ['DEPOSIT', 500],
        ['PAYMENT', -195],
        ['REFUND', 195],
      ],
    )
  })

  test('prevents the payment if it arrives before the payment', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    await sendBare(bus, 'billing', canceled(orderId, accountId))
    await sendBare(bus, 'billing', created(orderId, accountId))
    const { headers } = await announced(accountId, 'PAYMENT_FAIL')
    assert.equal(headers['x-reason'], 'ORDER_CANCELED')
    assert.equal(await balanceOf(accountId), 500)
  })

  test('refunds the account that paid, even if it names another account', async () => {
    const [accountId, orderId, other] = [await openAccount(500), newId(), await openAccount(1)]
    await sendBare(bus, 'billing', created(orderId, accountId))
    await announced(accountId, 'ORDER_PAID')
    await sendBare(bus, 'billing', canceled(orderId, other))
    await announced(accountId, 'PAYMENT_REFUNDED')
    assert.deepEqual([await balanceOf(accountId), await balanceOf(other)], [500, 1])
  })
})

describe('DEPOSIT_REQUEST from any program', () => {
  test('is answered with DEPOSIT_ACCEPTED, and is booked once under its id', async () => {
    const accountId = await openAccount()
    const body = { event: 'DEPOSIT_REQUEST', accountId, value: 12.34 }
    for (let n = 0; n < 2; n += 1) {
      await sendBare(bus, 'billing', body, { ce_id: `theirs-${accountId}` })
    }
    const { text, headers } = await announced(accountId, 'DEPOSIT_ACCEPTED', 2)
    assert.equal(text, JSON.stringify({ event: 'DEPOSIT_ACCEPTED', accountId, value: 12.34 }))
    assert.equal(headers.ce_id, `theirs-${accountId}/DEPOSIT_ACCEPTED`)
    assert.equal(await balanceOf(accountId), 12.34)
  })

  test('is booked each time it arrives if it has no id', async () => {
    const accountId = await openAccount()
    const body = { event: 'DEPOSIT_REQUEST', accountId, value: 0.1 }
    for (let n = 0; n < 3; n += 1) await sendBare(bus, 'billing', body)
    await announced(accountId, 'DEPOSIT_ACCEPTED', 3)
    assert.equal(await balanceOf(accountId), 0.3)
  })

  test('becomes a dead letter if the account does not exist', async () => {
    const accountId = newId()
    await sendBare(bus, 'billing', { event: 'DEPOSIT_REQUEST', accountId, value: 5 })
    assert.match((await firstDeadLetter(accountId)).reason, /ACCOUNT_NOT_FOUND/)
  })

  test('becomes a dead letter and credits nobody if its id belongs to a deposit to another account', async () => {
    const [accountId, other] = [await openAccount(), await openAccount()]
    const id = { ce_id: `shared-${accountId}` }
    await sendBare(bus, 'billing', { event: 'DEPOSIT_REQUEST', accountId, value: 5 }, id)
    await announced(accountId, 'DEPOSIT_ACCEPTED')
    const body = { event: 'DEPOSIT_REQUEST', accountId: other, value: 5 }
    await sendBare(bus, 'billing', body, id)
    assert.match((await firstDeadLetter(other)).reason, /DEPOSIT_MISMATCH/)
    assert.equal(await balanceOf(other), 0)
  })
})

describe('a message that can never succeed', () => {
  const bytes = (text: string) => new TextEncoder().encode(text)
  const cases: [name: string, value: Uint8Array | null, reason: RegExp][] = [
    ['is not text', new Uint8Array([0xff, 0xfe, 0x00]), /not JSON/],
    ['is not JSON', bytes('{"event":'), /not JSON/],
    ['is empty', null, /no body/],
    ['names no event', bytes('{"orderId":1}'), /names no event/],
    ['is too large', bytes(JSON.stringify({ event: 'x'.repeat(100_000) })), /at most 65536/],
    [
      'has a third decimal',
      bytes(JSON.stringify({ event: 'DEPOSIT_REQUEST', accountId: newId(), value: 0.001 })),
      /two decimals/,
    ],
    [
      'is on the wrong topic',
      bytes(JSON.stringify({ event: 'DEPOSIT_ACCEPTED', accountId: newId(), value: 5 })),
      /does not belong on topic billing/,
    ],
  ]
  for (const [name, value, reason] of cases) {
    test(`becomes a dead letter with its bytes if it ${name}, and later messages are handled`, async () => {
      const accountId = await openAccount(500)
      await bus.send([{ topic: 'billing', key: accountId, value, headers: {} }])
      await handled(accountId)
      const letter = await firstDeadLetter(accountId)
      assert.equal(letter.code, 'UNREADABLE')
      assert.match(letter.reason, reason)
      assert.deepEqual(letter.value, value)
    })
  }

  for (const [name, id] of [
    ['longer than the database can index', Array.from({ length: 300 }, newId).join('')],
    ['one that the database cannot hold', 'a\0b'],
    ['one that no HTTP header can carry', 'заказ-1'],
  ] as const) {
    test(`becomes a dead letter if its id is ${name}, and later messages are handled`, async () => {
      const accountId = await openAccount(500)
      const body = { event: 'DEPOSIT_REQUEST', accountId, value: 5 }
      await sendBare(bus, 'billing', body, { ce_id: id })
      await handled(accountId)
      assert.equal((await deadLetters(accountId)).length, 1)
      assert.equal(await balanceOf(accountId), 500)
    })
  }
})

test('each balance event has the next version, and the last one has the current balance', async () => {
  const accountId = await openAccount(500)
  for (let n = 0; n < 3; n += 1) {
    const body = { event: 'ORDER_CREATED', orderId: newId(), accountId, price: 100.5 }
    await sendBare(bus, 'billing', body)
    await announced(accountId, 'ORDER_PAID', n + 1)
  }
  await until(() => on('balance', accountId).length === 5)
  const stream = on('balance', accountId).map(({ body: { updated, ...body } }) => {
    assert.equal(new Date(updated as string).toISOString(), updated)
    return body
  })
  const balances = [0, 500, 399.5, 299, 198.5]
  assert.deepEqual(
    stream,
    balances.map((balance, version) => ({ accountId, balance, version })),
  )
  const ids = on('balance', accountId).map(({ headers }) => headers.ce_id)
  assert.equal(ids[4], `${accountId}/BALANCE_CHANGED/4`)
})

test('readers can decode every message that the billing service sends', () => {
  for (const { topic, text, headers } of wire.messages) {
    if (topic !== 'payment') continue
    const value = new TextEncoder().encode(text)
    const event = decodeEvent({ topic, partition: 0, offset: 0n, value, headers })
    assert.ok(typeof event !== 'string' && 'meta' in event, String(event))
    assert.equal(event.unknownFields, undefined)
    const expected = eventHeaders(event.body.event, 'billing', 0, event.meta)
    assert.deepEqual(Object.keys(headers).sort(), Object.keys(expected).sort())
  }
})
