// This file is long because all tests share one running service.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { InteractionStyle } from '../../contracts/style.ts'
import { until } from '../../platform/async/until.ts'
import { type FakeResponse, sendBare } from '../../tests/support/harness.ts'
import { ORDER_DEADLINE_MS, POLL_MS, startOrder } from '../../tests/support/order-service.ts'

const { bus, database, clock, billing, notification, wire, call } = await startOrder(
  { status: 200, body: 'paid' },
  ['billing', 'payment'],
)

const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
const theirTrace = { traceparent, tracestate: 'shop=7' }
const newAccount = () => crypto.randomUUID()
const VOIDED = { status: 200, body: { orderId: 'an id', state: 'VOIDED' } }
const place = (accountId: string, style?: InteractionStyle, headers: Record<string, string> = {}) =>
  call('POST', `/orders?profileId=${accountId}`, {
    body: { productQuantity: 3 },
    headers: { ...(style && { 'x-interaction-style': style }), ...headers },
  })
const read = async (orderId: string, accountId: string) =>
  (await call('GET', `/orders/${orderId}?profileId=${accountId}`)).body
const remove = (orderId: string, accountId: string) =>
  call('DELETE', `/orders/${orderId}?profileId=${accountId}`)
const isSettled = (orderId: string, accountId: string, state: string) =>
  until(async () => (await read(orderId, accountId)).state === state, {
    what: `${orderId} ${state}`,
  })

/** The events about an account on all topics, as one line each. */
const sent = (accountId: string) =>
  wire.of(accountId).map(({ body }) => `${body.event}${body.orderId ? ` ${body.orderId}` : ''}`)
const deadLetters = (accountId: string) =>
  database.query<{ reason: string }>('select reason from orders.dead_letter where key = $1', [
    accountId,
  ])

describe('an order in events', () => {
  test('is PENDING at once, and its payment is requested by ORDER_CREATED exactly as the contract says', async () => {
    const accountId = newAccount()
    const { status, body: orderId } = await place(accountId, undefined, theirTrace)
    assert.equal(status, 201)
    const order = await read(orderId, accountId)
    assert.equal(order.state, 'PENDING')
    const [message] = await until(() => wire.of(accountId).length > 0 && wire.of(accountId))
    const { ce_time: time, 'x-deadline': deadline, ...headers } = message!.headers
    assert.equal(message!.topic, 'billing')
    assert.equal(
      message!.text,
      JSON.stringify({ event: 'ORDER_CREATED', orderId, accountId, price: 195 }),
    )
    assert.deepEqual(headers, {
      ce_id: `${orderId}/ORDER_CREATED`,
      ce_type: 'ORDER_CREATED',
      ce_source: '/trifold/order',
      ce_specversion: '1.0',
      'content-type': 'application/json',
      'x-interaction-style': 'events',
      // Without tracing, the trace context of the request passes through.
      ...theirTrace,
    })
    assert.equal(new Date(time!).toISOString(), time)
    const sentFor = Date.parse(deadline!) - Date.parse(time!)
    assert.equal(sentFor, ORDER_DEADLINE_MS)
  })

  for (const [event, state, reason] of [
    ['ORDER_PAID', 'APPROVED', null],
    ['PAYMENT_FAIL', 'CANCELED', 'NOT_ENOUGH_MONEY'],
  ] as const) {
    test(`is ${state} after a bare ${event} from any program`, async () => {
      const accountId = newAccount()
      const { body: orderId } = await place(accountId)
      await sendBare(bus, 'payment', { event, orderId, accountId })
      await isSettled(orderId, accountId, state)
      assert.equal((await read(orderId, accountId)).reason, reason)
    })
  }

  test('has the reason that the message states', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    const body = { event: 'PAYMENT_FAIL', orderId, accountId }
    await sendBare(bus, 'payment', body, { 'x-reason': 'ACCOUNT_NOT_FOUND' })
    await isSettled(orderId, accountId, 'CANCELED')
    assert.equal((await read(orderId, accountId)).reason, 'ACCOUNT_NOT_FOUND')
  })

  test('is settled once, however often and in whatever order its outcomes arrive', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    const { body: marker } = await place(accountId)
    for (const event of ['ORDER_PAID', 'PAYMENT_FAIL', 'ORDER_PAID', 'ORDER_PAID']) {
      await sendBare(bus, 'payment', { event, orderId, accountId })
    }
    await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId: marker, accountId })
    await isSettled(marker, accountId, 'APPROVED')
    assert.equal((await read(orderId, accountId)).state, 'APPROVED')
    assert.deepEqual(
      sent(accountId).filter((line) => line.startsWith('ORDER_CANCELED')),
      [],
    )
  })

  test('has its payment voided if it is canceled and then paid', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    await sendBare(bus, 'payment', { event: 'PAYMENT_FAIL', orderId, accountId })
    await isSettled(orderId, accountId, 'CANCELED')
    await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId, accountId })
    const message = await until(() =>
      wire.of(accountId).find(({ body }) => body.event === 'ORDER_CANCELED'),
    )
    assert.equal(message.topic, 'billing')
    assert.equal(message.text, JSON.stringify({ event: 'ORDER_CANCELED', orderId, accountId }))
    assert.equal(message.headers.ce_id, `${orderId}/ORDER_CANCELED`)
    assert.equal((await read(orderId, accountId)).state, 'CANCELED')
  })

  test('is canceled, and the payment voided, if the paid amount is not its price', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    const body = { event: 'ORDER_PAID', orderId, accountId }
    await sendBare(bus, 'payment', body, { 'x-amount': '194.99' })
    await isSettled(orderId, accountId, 'CANCELED')
    assert.equal((await read(orderId, accountId)).reason, 'PAYMENT_MISMATCH')
    await until(() => sent(accountId).includes(`ORDER_CANCELED ${orderId}`))
    const { body: other } = await place(accountId)
    await sendBare(bus, 'payment', { ...body, orderId: other }, { 'x-amount': '195' })
    await isSettled(other, accountId, 'APPROVED')
  })

  test('is canceled, and its payment voided, when it is deleted', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    assert.deepEqual((await remove(orderId, accountId)).body, orderId)
    const { state, reason } = await read(orderId, accountId)
    assert.deepEqual([state, reason], ['CANCELED', 'DELETED'])
    const all = [`ORDER_CREATED ${orderId}`, `ORDER_CANCELED ${orderId}`, `PAYMENT_FAIL ${orderId}`]
    await until(() => sent(accountId).length >= all.length)
    assert.deepEqual(sent(accountId).slice(0, all.length).sort(), all.sort())
  })

  test('is canceled when the billing service refunds it', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId, accountId })
    const refund = { event: 'PAYMENT_REFUNDED', orderId, accountId, value: 195 }
    await sendBare(bus, 'payment', refund)
    await isSettled(orderId, accountId, 'CANCELED')
    assert.equal((await read(orderId, accountId)).reason, 'REFUNDED')
  })

  test("is not settled by another account's payment, which becomes a dead letter with its reason", async () => {
    const [accountId, other] = [newAccount(), newAccount()]
    const { body: orderId } = await place(accountId)
    await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId, accountId: other })
    const [letter] = await until(async () => {
      const letters = await deadLetters(other)
      return letters.length > 0 && letters
    })
    assert.match(letter!.reason, new RegExp(`${orderId} does not belong to account ${other}`))
    assert.equal((await read(orderId, accountId)).state, 'PENDING')
  })

  test('is skipped if the order service does not know it, as are deposits', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    await sendBare(bus, 'payment', { event: 'DEPOSIT_ACCEPTED', accountId, value: 5 })
    const unknown = crypto.randomUUID()
    await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId: unknown, accountId })
    await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId, accountId })
    await isSettled(orderId, accountId, 'APPROVED')
    assert.deepEqual(await deadLetters(accountId), [])
  })

  test('has the same event resent while it has no outcome', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    await until(() => sent(accountId).length === 1)
    for (const wanted of [2, 3]) {
      await until(() => {
        clock.advance(POLL_MS)
        return sent(accountId).length >= wanted
      })
    }
    const ids = wire.of(accountId).map(({ headers }) => headers.ce_id)
    assert.deepEqual([...new Set(ids)], [`${orderId}/ORDER_CREATED`])
    const texts = wire.of(accountId).map(({ text }) => text)
    assert.equal(new Set(texts).size, 1)
    await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId, accountId })
    await isSettled(orderId, accountId, 'APPROVED')
  })

  test('is canceled at its deadline if it has no outcome, and its payment is voided', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    clock.advance(ORDER_DEADLINE_MS - 10_000)
    assert.equal((await read(orderId, accountId)).state, 'PENDING')
    clock.advance(10_000)
    await until(async () => {
      clock.advance(POLL_MS)
      return (await read(orderId, accountId)).state === 'CANCELED'
    })
    assert.equal((await read(orderId, accountId)).reason, 'DEADLINE_PASSED')
    await until(() => sent(accountId).includes(`ORDER_CANCELED ${orderId}`))
    const failure = await until(() =>
      wire.of(accountId).find(({ body }) => body.event === 'PAYMENT_FAIL'),
    )
    assert.deepEqual([failure.topic, failure.headers['x-reason']], ['payment', 'DEADLINE_PASSED'])
  })

  test('answers waiting reads as soon as its outcome is known', async () => {
    const accountId = newAccount()
    const { body: orderId } = await place(accountId)
    const waiting = call('GET', `/orders/${orderId}?profileId=${accountId}`, {
      headers: { prefer: 'wait=5' },
    })
    await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId, accountId })
    const { body, headers } = await waiting
    assert.equal(body.state, 'APPROVED')
    assert.equal(headers['preference-applied'], 'wait=5')
  })
})

for (const style of ['http', 'hybrid'] as const) {
  describe(`an order in ${style}`, () => {
    /**
     * Places an order while the billing service gives this response to payments. Voids get their normal
     * response.
     */
    async function placeWhile(answer: FakeResponse) {
      billing.respondWith(({ path }) => (path.endsWith('/void') ? VOIDED : answer))
      const accountId = newAccount()
      const placed = await place(accountId, style, theirTrace)
      const orderId: string = placed.body.orderId ?? placed.body
      return { ...placed, accountId, orderId, order: await read(orderId, accountId) }
    }
    const voidsOf = (orderId: string) =>
      billing.requests.filter(({ path }) => path === `/billing/payments/${orderId}/void`)

    test('is approved before the response, with one call', async () => {
      const { status, accountId, orderId, order } = await placeWhile({ status: 200, body: 'p' })
      assert.equal(status, 201)
      assert.equal(order.state, 'APPROVED')
      const calls = billing.about(orderId)
      assert.equal(calls.length, 1)
      const { method, path, headers, body } = calls[0]!
      assert.deepEqual([method, path], ['POST', '/billing/account'])
      assert.equal(body, JSON.stringify({ accountId, amount: 195, orderId }))
      assert.equal(headers['idempotency-key'], `${orderId}/ORDER_CREATED`)
      assert.equal(headers['x-interaction-style'], style)
      assert.equal(headers.traceparent, traceparent)
      assert.equal(headers.tracestate, theirTrace.tracestate)
      const untilMs = Date.parse(headers['x-deadline'] as string) - clock.runtime.now()
      assert.ok(untilMs > 0 && untilMs <= ORDER_DEADLINE_MS + 1_000, String(untilMs))
      assert.deepEqual(sent(accountId), [])
    })

    const refusals = [
      [402, { code: 'NOT_ENOUGH_MONEY', reason: 'NOT_ENOUGH_MONEY' }, 402, 'NOT_ENOUGH_MONEY'],
      [402, { code: 'NOT_ENOUGH_MONEY' }, 402, 'NOT_ENOUGH_MONEY'],
      [404, { code: 'ACCOUNT_NOT_FOUND' }, 404, 'ACCOUNT_NOT_FOUND'],
      [409, { code: 'PAYMENT_VOIDED', reason: 'ORDER_CANCELED' }, 409, 'ORDER_CANCELED'],
    ] as const
    for (const [billingStatus, body, expectedStatus, reason] of refusals) {
      test(`gets ${expectedStatus} and no void if the billing service refuses it with ${billingStatus} ${body.code}`, async () => {
        const {
          status,
          body: problem,
          orderId,
          order,
        } = await placeWhile({ status: billingStatus, body })
        assert.equal(status, expectedStatus)
        assert.equal(problem.orderId, orderId)
        assert.deepEqual([order.state, order.reason], ['CANCELED', reason])
        assert.deepEqual(voidsOf(orderId), [])
      })
    }

    const troubles: [name: string, answer: FakeResponse][] = [
      ['hangs', 'hang'],
      ['cuts the connection', 'cut'],
      ['responds with 503', { status: 503 }],
      ['responds with 200 and something other than a payment', { status: 200, body: { ok: true } }],
    ]
    for (const [name, answer] of troubles) {
      test(`is canceled with 503 if the billing service ${name}, and its payment is voided`, async () => {
        const { status, body, accountId, orderId, order } = await placeWhile(answer)
        assert.equal(status, 503)
        assert.equal(body.code, 'BILLING_UNREACHABLE')
        assert.deepEqual([order.state, order.reason], ['CANCELED', 'BILLING_UNREACHABLE'])
        const [request] = await until(() => voidsOf(orderId).length > 0 && voidsOf(orderId))
        assert.equal(request?.body, JSON.stringify({ accountId }))
        assert.equal(request?.headers['idempotency-key'], `${orderId}/ORDER_CANCELED`)
        if (style === 'http') {
          const [notified] = await until(() => {
            const found = notification.about(orderId)
            return found.length > 0 && found
          })
          assert.equal(notified!.path, '/notification/')
          assert.equal(
            notified!.body,
            JSON.stringify({ event: 'PAYMENT_FAIL', orderId, accountId }),
          )
          assert.equal(notified!.headers['idempotency-key'], `${orderId}/PAYMENT_FAIL`)
          assert.equal(notified!.headers['x-reason'], 'BILLING_UNREACHABLE')
          return assert.deepEqual(sent(accountId), [])
        }
        const [message] = await until(() => wire.of(accountId).length > 0 && wire.of(accountId))
        assert.equal(message!.topic, 'payment')
        assert.equal(
          message!.text,
          `{"event":"PAYMENT_FAIL","orderId":"${orderId}","accountId":"${accountId}"}`,
        )
        assert.equal(message!.headers['x-reason'], 'BILLING_UNREACHABLE')
      })
    }

    test('is canceled if the billing service has a different payment for it, and that payment is voided', async () => {
      const answer = { status: 409, body: { code: 'PAYMENT_MISMATCH' } }
      const { status, body, orderId, order } = await placeWhile(answer)
      assert.deepEqual(
        [status, body.code, body.reason],
        [409, 'ORDER_CANCELED', 'PAYMENT_MISMATCH'],
      )
      assert.deepEqual([order.state, order.reason], ['CANCELED', 'PAYMENT_MISMATCH'])
      await until(() => voidsOf(orderId).length > 0)
    })

    test('has its void repeated until the billing service confirms it', async () => {
      billing.respondWith('cut')
      const accountId = newAccount()
      const { orderId } = (await place(accountId, style)).body
      for (const wanted of [1, 2, 3]) {
        await until(() => {
          clock.advance(POLL_MS)
          return voidsOf(orderId).length >= wanted
        })
      }
      billing.respondWith(VOIDED)
      const rows = () => database.query('select from orders.outbox where key = $1', [orderId])
      await until(async () => {
        clock.advance(POLL_MS)
        return (await rows()).length === 0
      })
    })

    for (const [answer, name] of [
      [{ status: 401 }, 'requires credentials'],
      [{ status: 403 }, 'forbids the call'],
      [{ status: 429, body: { code: 'TOO_MANY_REQUESTS' } }, 'is overloaded'],
      [{ status: 404 }, 'is not behind the gateway'],
      [{ status: 302 }, 'is behind a login page'],
    ] as const) {
      test(`stays PENDING while the billing service ${name}, and is paid once the service accepts the call`, async () => {
        billing.respondWith(answer)
        const accountId = newAccount()
        const placing = place(accountId, style)
        await until(() => billing.about(accountId).length > 0)
        await until(() => {
          clock.advance(POLL_MS)
          return billing.about(accountId).length > 1
        })
        const [order] = (await call('GET', `/orders?profileId=${accountId}`)).body
        assert.equal(order.state, 'PENDING')
        billing.respondWith({ status: 200, body: 'p' })
        await until(async () => {
          clock.advance(POLL_MS)
          return (await read(order.id, accountId)).state === 'APPROVED'
        })
        const { status, body } = await placing
        assert.ok(status === 201 || body.code === 'OUTCOME_UNKNOWN', JSON.stringify(body))
        assert.deepEqual(voidsOf(order.id), [])
      })
    }

    test('is voided without another payment attempt if it is canceled while the billing service rejects the call', async () => {
      billing.respondWith({ status: 403 })
      const accountId = newAccount()
      const placing = place(accountId, style)
      await until(() => billing.about(accountId).length > 0)
      const [order] = (await call('GET', `/orders?profileId=${accountId}`)).body
      await remove(order.id, accountId)
      await placing
      const payments = () => billing.about(order.id).length - voidsOf(order.id).length
      const before = payments()
      billing.respondWith(VOIDED)
      await until(() => {
        clock.advance(POLL_MS)
        return voidsOf(order.id).length > 0
      })
      assert.equal(payments(), before)
    })

    test('has its payment request repeated while the billing service is still processing it', async () => {
      const accountId = newAccount()
      let attempts = 0
      billing.respondWith(({ body: request }) => {
        // An earlier test's void may still be retried.
        if (!request.includes(accountId)) return { status: 200, body: 'p' }
        attempts += 1
        const body = { code: 'IDEMPOTENCY_KEY_IN_PROGRESS' }
        return attempts < 3 ? { status: 409, body } : { status: 200, body: 'p' }
      })
      const { status, body: orderId } = await place(accountId, style)
      assert.equal(status, 201)
      const keys = billing.about(orderId).map(({ headers }) => headers['idempotency-key'])
      assert.deepEqual(keys, Array(3).fill(`${orderId}/ORDER_CREATED`))
    })
  })
}

describe("the time limit in a caller's request", () => {
  const [accountId, key] = [newAccount(), crypto.randomUUID()]

  test('makes an order fail once the time has run out, and leaves the Idempotency-Key unused', async () => {
    const headers = { 'x-request-timeout-ms': '0', 'idempotency-key': key }
    const { status, body, headers: received } = await place(accountId, 'events', headers)
    assert.deepEqual([status, body.code, received['retry-after']], [429, 'TOO_MANY_REQUESTS', '1'])
    assert.deepEqual((await call('GET', `/orders?profileId=${accountId}`)).body, [])
    assert.equal((await place(accountId, 'events', { 'idempotency-key': key })).status, 201)
  })

  for (const style of ['http', 'hybrid'] as const) {
    test(`is passed on to the billing service in ${style}, up to the time limit of that call`, async () => {
      billing.respondWith({ status: 200, body: 'paid' })
      for (const [timeoutMs, most] of [
        ['100', 100],
        ['60000', 300],
      ] as const) {
        const { body: orderId } = await place(newAccount(), style, {
          'x-request-timeout-ms': timeoutMs,
        })
        const [request] = billing.about(orderId)
        const given = Number(request?.headers['x-request-timeout-ms'])
        assert.ok(given > 0 && given <= most, `${given} of ${most} ms`)
      }
    })

    test(`ends the wait in ${style} while the billing service is unresponsive, and does not limit the void`, async () => {
      billing.respondWith('hang')
      const owner = newAccount()
      const { status } = await place(owner, style, { 'x-request-timeout-ms': '50' })
      assert.equal(status, 503)
      billing.respondWith({ status: 200, body: 'voided' })
      const [order] = (await call('GET', `/orders?profileId=${owner}`)).body
      await isSettled(order.id, owner, 'CANCELED')
      const isVoid = ({ path }: { path: string }) => path.endsWith('/void')
      const request = await until(() => billing.about(order.id).find(isVoid))
      assert.equal(request.headers['x-request-timeout-ms'], '300')
    })
  }
})

describe('an Idempotency-Key', () => {
  const keyed = (accountId: string, key: string, style: InteractionStyle) =>
    place(accountId, style, { 'idempotency-key': key })

  test('makes all requests with it get the same order, and the billing service is called once', async () => {
    const accountId = newAccount()
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => keyed(accountId, `key-${accountId}`, 'events')),
    )
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [201])
    assert.equal(new Set(answers.map(({ body }) => body)).size, 1)
    const orders = (await call('GET', `/orders?profileId=${accountId}`)).body
    assert.equal(orders.length, 1)
  })

  test('is rejected while its first request runs, and then gets the response of that request', async () => {
    const accountId = newAccount()
    const key = `key-${accountId}`
    billing.respondWith('hang')
    const first = keyed(accountId, key, 'http')
    await until(() => billing.about(accountId).length > 0)
    assert.equal((await keyed(accountId, key, 'http')).body.code, 'IDEMPOTENCY_KEY_IN_PROGRESS')
    const { status, body } = await first
    const again = await keyed(accountId, key, 'http')
    assert.deepEqual([again.status, again.body], [status, body])
    assert.equal(status, 503)
    assert.equal(body.retryable, false)
    assert.equal(again.headers['retry-after'], undefined)
  })

  test('has one response, even if the first request reads the outcome late', async () => {
    const accountId = newAccount()
    const key = `key-${accountId}`
    billing.respondWith('hang')
    const first = keyed(accountId, key, 'http')
    await until(() => billing.about(accountId).length > 0)
    const [order] = await database.query<{ id: string }>(
      'select id from orders.orders where profile_id = $1',
      [accountId],
    )
    // As if another instance had settled the order and its notification had been lost: the outcome is
    // stored under the key, and the money is back.
    await database.query(
      `update orders.idempotency set status = 201, body = to_json($2::text)::text where key = $1`,
      [key, order!.id],
    )
    await database.query(
      `with unwatched as (delete from orders.watch where order_id = $1)
       update orders.orders set state = 'CANCELED', reason = 'DELETED' where id = $1`,
      [order!.id],
    )
    const { status, body } = await first
    assert.deepEqual([status, body], [201, order!.id])
  })
})
