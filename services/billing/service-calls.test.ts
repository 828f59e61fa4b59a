import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createIdempotency } from '../../chassis/idempotency.ts'
import { createOutbox } from '../../messaging/outbox/outbox.ts'
import { until } from '../../platform/async/until.ts'
import { partOf, type Queryable } from '../../platform/database/database.ts'
import { POLL_MS, startBilling } from '../../tests/support/billing-service.ts'
import { type Addressed, applyCommands } from './commands.ts'

const { database, clock, call, others, loses, on, announced, handled, openAccount, ...of } =
  await startBilling()
const { balanceOf, entriesOf } = of
const newId = () => crypto.randomUUID()
const inStyle = (style: string) => ({ headers: { 'x-interaction-style': style } })

describe('a deposit', () => {
  test('in events gets the future balance as its response, and is booked when its message is read from the topic', async () => {
    const accountId = await openAccount(100)
    const answers = await Promise.all(
      [10, 20].map((amount) => call('POST', `/billing/account/${accountId}?amount=${amount}`)),
    )
    assert.deepEqual(
      answers.map(({ body }) => body),
      [110, 130],
    )
    await announced(accountId, 'DEPOSIT_ACCEPTED', 3)
    assert.equal(await balanceOf(accountId), 130)
    const requests = on('billing', accountId).map(({ text }) => text)
    assert.deepEqual(
      requests,
      [10, 20].map((value) => JSON.stringify({ event: 'DEPOSIT_REQUEST', accountId, value })),
    )
  })

  test('in events is resent under the same id if its message is lost, and is booked exactly once', async () => {
    const accountId = await openAccount()
    const lost: string[] = []
    loses.next = (id) => {
      if (lost.length > 1 || id.includes('/')) return false
      lost.push(id)
      return true
    }
    assert.equal((await call('POST', `/billing/account/${accountId}?amount=7`)).body, 7)
    await until(() => {
      clock.advance(POLL_MS)
      return on('payment', accountId).length > 0
    })
    assert.equal(lost.length, 2)
    assert.equal(lost[0], lost[1])
    const requests = on('billing', accountId).map(({ headers }) => headers.ce_id)
    assert.deepEqual([...new Set(requests)], [lost[0]])
    assert.equal(await balanceOf(accountId), 7)
    await handled(accountId)
    assert.equal(await balanceOf(accountId), 7)
  })

  test('in http is booked and announced before the response', async () => {
    const accountId = await openAccount()
    const path = `/billing/account/${accountId}?amount=199.5`
    const { body } = await call('POST', path, inStyle('http'))
    assert.equal(body, 199.5)
    const [request] = others.about(accountId)
    assert.deepEqual([request?.method, request?.path], ['POST', '/notification/'])
    const event = { event: 'DEPOSIT_ACCEPTED', accountId, value: 199.5 }
    assert.equal(request?.body, JSON.stringify(event))
    assert.match(request?.headers['idempotency-key'] as string, /\/DEPOSIT_ACCEPTED$/)
    assert.deepEqual(on('payment', accountId), [])
  })
})

describe('in http', () => {
  const pay = (accountId: string, orderId: string, amount = 195) =>
    call('POST', '/billing/account', { body: { accountId, amount, orderId }, ...inStyle('http') })
  const aboutOrder = (orderId: string) => others.about(orderId)

  const unknownEvent = { status: 400, body: { code: 'VALIDATION_FAILED', field: 'body/event' } }
  for (const [name, answer] of [
    ['hangs', 'hang'],
    ['cuts the connection', 'cut'],
    ['responds with 503', { status: 503 }],
    ['does not know the event yet', unknownEvent],
  ] as const) {
    test(`a payment gets its response even if the notification service ${name}, and is announced later`, async () => {
      const [accountId, orderId] = [await openAccount(500), newId()]
      others.respondWith(answer)
      assert.equal((await pay(accountId, orderId)).status, 200)
      await until(() => aboutOrder(orderId).length > 0)
      others.respondWith({ status: 200, body: 'an id' })
      const rows = () => database.query('select from billing.outbox where key = $1', [accountId])
      await until(async () => {
        clock.advance(POLL_MS)
        return (await rows()).length === 0
      })
      const keys = aboutOrder(orderId).map(({ headers }) => headers['idempotency-key'])
      assert.ok(keys.length > 1)
      assert.deepEqual([...new Set(keys)], [`${orderId}/ORDER_PAID`])
    })
  }

  for (const [answer, isFinal] of [
    [{ status: 404 }, false],
    [{ status: 403 }, false],
    [{ status: 404, body: { code: 'ORDER_NOT_FOUND' } }, true],
  ] as const) {
    const described = `${answer.status} ${'body' in answer ? answer.body.code : 'from a gateway'}`
    test(`the call that notifies the order service of a refund ${isFinal ? 'ends with' : 'is retried after'} ${described}`, async () => {
      const [accountId, orderId] = [await openAccount(500), newId()]
      await pay(accountId, orderId)
      others.respondWith(({ method }) =>
        method === 'DELETE' ? answer : { status: 200, body: 'an id' },
      )
      await call('POST', `/billing/payments/${orderId}/void`, inStyle('http'))
      const deletes = () => aboutOrder(orderId).filter(({ method }) => method === 'DELETE')
      await until(() => {
        clock.advance(POLL_MS)
        return deletes().length >= (isFinal ? 1 : 3)
      })
      others.respondWith({ status: 200, body: 'an id' })
      const rows = () => database.query('select from billing.outbox where key = $1', [orderId])
      await until(async () => {
        clock.advance(POLL_MS)
        return (await rows()).length === 0
      })
      if (isFinal) assert.equal(deletes().length, 1)
    })
  }

  test('a payment that arrives after the deadline of its order is refused and announced as failed', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    const headers = { 'x-deadline': '2020-01-01T00:00:00.000Z', ...inStyle('http').headers }
    const body = { accountId, amount: 195, orderId }
    const { status, body: problem } = await call('POST', '/billing/account', { body, headers })
    assert.deepEqual(
      [status, problem.code, problem.reason],
      [409, 'PAYMENT_VOIDED', 'DEADLINE_PASSED'],
    )
    assert.equal(await balanceOf(accountId), 500)
    assert.equal(aboutOrder(orderId)[0]?.headers['x-reason'], 'DEADLINE_PASSED')
  })

  test('a refused payment is announced with its reason', async () => {
    const [accountId, orderId] = [await openAccount(), newId()]
    const { status, body } = await pay(accountId, orderId)
    assert.equal(status, 402)
    assert.deepEqual([body.code, body.orderId], ['NOT_ENOUGH_MONEY', orderId])
    const [request] = aboutOrder(orderId)
    assert.equal(request?.headers['x-reason'], 'NOT_ENOUGH_MONEY')
  })

  test('the order service is notified of a refund', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    await pay(accountId, orderId)
    const { body } = await call('POST', `/billing/payments/${orderId}/void`, inStyle('http'))
    assert.deepEqual(body, { orderId, state: 'REFUNDED' })
    const calls = aboutOrder(orderId).map(({ method, path }) => `${method} ${path}`)
    assert.deepEqual(calls.sort(), [
      `DELETE /orders/${orderId}?profileId=${accountId}`,
      'POST /notification/',
      'POST /notification/',
    ])
  })

  test('the order service is notified of a refund even if the caller claims to be the order service', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    await pay(accountId, orderId)
    const headers = { 'idempotency-key': `${orderId}/ORDER_CANCELED`, ...inStyle('http').headers }
    await call('POST', `/billing/payments/${orderId}/void`, { body: { accountId }, headers })
    const deleted = `DELETE /orders/${orderId}?profileId=${accountId}`
    await until(() =>
      aboutOrder(orderId).some(({ method, path }) => `${method} ${path}` === deleted),
    )
  })
})

describe('a void that names no account', () => {
  test('is a conflict if the payment commits after the void has read it and before the void has locked the account', async () => {
    const [accountId, orderId] = [await openAccount(500), newId()]
    const context = {
      outbox: createOutbox('billing'),
      idempotency: createIdempotency('billing'),
      now: Date.now(),
    }
    const common = { style: 'hybrid', byMessage: false, orderId, paymentId: newId() } as const
    const payment: Addressed = {
      command: { ...common, type: 'pay', accountId, amountMinor: 19_500n },
    }
    const voiding: Addressed = {
      command: { ...common, type: 'void', accountId: null, byOrder: false },
    }
    const raced = database.transaction(async (tx) => {
      let reads = 0
      const overtaken: Queryable = {
        async query<Row>(text: string, params?: readonly unknown[]) {
          const rows = await tx.query<Row>(text, params)
          if (/from billing.payment/.test(text) && ++reads === 1) {
            await applyCommands(partOf(tx), context, [payment])
          }
          return rows
        },
      }
      return applyCommands(overtaken, context, [voiding])
    })
    await assert.rejects(raced, { name: 'DatabaseError', kind: 'conflict' })
    const paid = { accountId, amount: 195, orderId }
    await call('POST', '/billing/account', { body: paid, ...inStyle('hybrid') })
    const { body } = await call('POST', `/billing/payments/${orderId}/void`)
    assert.equal(body.state, 'REFUNDED')
    assert.equal(await balanceOf(accountId), 500)
  })
})

test('twenty concurrent requests with one Idempotency-Key make one deposit, and a different deposit with that key is rejected', async () => {
  const accountId = await openAccount()
  const headers = { 'idempotency-key': `key-${accountId}`, 'x-interaction-style': 'hybrid' }
  const deposit = (amount: number) =>
    call('POST', `/billing/account/${accountId}?amount=${amount}`, { headers })
  const answers = await Promise.all(Array.from({ length: 20 }, () => deposit(7)))
  assert.deepEqual([...new Set(answers.map(({ body }) => body))], [7])
  assert.equal((await deposit(8)).body.code, 'IDEMPOTENCY_KEY_REUSED')
  assert.equal((await entriesOf(accountId)).length, 1)
})

describe("the time limit in a caller's request", () => {
  test('makes a payment fail once the time has run out, and lets the same payment succeed in time', async () => {
    const accountId = await openAccount(100)
    const orderId = newId()
    const pay = (timeoutMs: string) =>
      call('POST', '/billing/account', {
        headers: {
          'idempotency-key': `${orderId}/ORDER_CREATED`,
          'x-request-timeout-ms': timeoutMs,
        },
        body: { accountId, amount: 40, orderId },
      })
    const late = await pay('0')
    assert.deepEqual([late.status, late.body.code], [429, 'TOO_MANY_REQUESTS'])
    assert.equal(await balanceOf(accountId), 100)
    assert.equal((await pay('5000')).status, 200)
    assert.equal(await balanceOf(accountId), 60)
  })

  test('limits the first attempt to announce the payment in http', async () => {
    const accountId = await openAccount()
    const headers = { 'x-interaction-style': 'http', 'x-request-timeout-ms': '200' }
    await call('POST', `/billing/account/${accountId}?amount=1`, { headers })
    const [request] = others.about(accountId)
    const given = Number(request?.headers['x-request-timeout-ms'])
    assert.ok(given > 0 && given <= 200, `${given} ms`)
  })
})
