import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { OrderView } from '../../contracts/http.ts'
import { STYLES } from '../../contracts/style.ts'
import { type AccountView, eventually, type MessageView, UNIT_PRICE } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

const trifold = await startProgram()
after(() => trifold.close())

test('every path works with and without the prefix and a trailing slash', async () => {
  for (const prefix of ['', '/otusapp/gur-ok']) {
    for (const slash of ['', '/']) {
      const read = <Body>(path: string, query = '', method = 'GET', options = {}) =>
        trifold.read<Body>(`${prefix}${path}${slash}${query}`, options, method)
      const account = await read<string>('/billing/account/create', '', 'POST')
      const style = { style: 'http' }
      const byHttp = await read<number>(`/billing/account/${account}`, '?amount=199', 'POST', style)
      assert.equal(byHttp, 199)
      const mine = `?profileId=${account}`
      const order = { json: { productQuantity: 1 }, ...style }
      const id = await read<string>('/orders', mine, 'POST', order)
      assert.equal((await read<OrderView>(`/orders/${id}`, mine)).state, 'APPROVED')
      assert.equal((await read<OrderView[]>('/orders', mine)).length, 1)
      assert.equal((await read<AccountView>(`/billing/account/${account}`)).balance, 134)
      assert.equal((await read<unknown[]>(`/billing/account/${account}/entries`)).length, 2)
      const messages = await read<MessageView[]>(`/notification/account/${account}`)
      assert.equal(messages.length, 2)
      assert.deepEqual(await read(`/notification/${messages[0]?.id}`), messages[0])
      assert.ok((await read<unknown[]>('/notification')).length >= 2)
      assert.equal(await read(`/orders/${id}`, mine, 'DELETE'), id)
      for (const service of ['orders', 'billing', 'notification']) {
        assert.deepEqual(await read(`/${service}/health`), { status: 'OK' })
        assert.equal((await read<{ status: string }>(`/${service}/actuator/health`)).status, 'UP')
        assert.match(await read<string>(`/${service}/actuator/prometheus`), /^# HELP /m)
        assert.ok(await read(`/${service}/openapi.json`))
      }
      assert.ok(await read('/asyncapi.json'))
      assert.match(await read<string>('/asyncapi'), /<html/i)
    }
  }
})

test('the orders of a profile are listed newest first, page by page', async () => {
  const [mine, theirs] = [await trifold.fundedAccount(400), await trifold.fundedAccount(400)]
  const placed: string[] = []
  for (const style of [...STYLES, ...STYLES].slice(0, 5)) {
    placed.push((await trifold.order(mine, { style })).body)
    await trifold.order(theirs, { style })
  }
  const path = `/orders/?profileId=${mine}`
  for (const limit of [1, 2, 5, 100]) {
    const orders = await trifold.readAll<OrderView>(path, limit)
    assert.deepEqual(
      orders.map(({ id }) => id),
      [...placed].reverse(),
    )
    const numbers = orders.map(({ orderNumber }) => orderNumber)
    assert.deepEqual(
      numbers,
      [...numbers].sort((a, b) => b - a),
    )
  }
  const first = await trifold.call('GET', `${path}&limit=2`)
  assert.match(first.headers.get('x-next-cursor') ?? 'none', /^\d+$/)
})

test("an account's notices have strictly increasing times, whatever the style", async () => {
  const account = await trifold.createAccount()
  await Promise.all(
    Array.from({ length: 60 }, (_, index) =>
      trifold.deposit(account, index + 1, STYLES[index % 3]),
    ),
  )
  await eventually(async () => assert.equal((await trifold.messages(account)).length, 60))
  const path = `/notification/account/${account}`
  const messages = await trifold.readAll<MessageView>(path, 7)
  const times = messages.map(({ created }) => created)
  assert.deepEqual(times, [...new Set(times)].sort())
  assert.equal(new Set(messages.map(({ id }) => id)).size, 60)
  assert.deepEqual(messages, await trifold.messages(account))
})

/**
 * Far less than the wait that the request allows, so a response within this time was caused by the outcome.
 */
const MUCH_EARLIER_MS = 5_000

test('with Prefer: wait the response comes as soon as the outcome is known, or when the wait is over', async () => {
  const account = await trifold.fundedAccount(UNIT_PRICE)
  await trifold.lab.billing.stop()
  try {
    const { body: id } = await trifold.order(account, { style: 'events' })
    const get = (prefer: string) =>
      trifold.call<OrderView>('GET', `/orders/${id}?profileId=${account}`, { headers: { prefer } })
    const startedMs = performance.now()
    const early = await get('respond-async, wait=1')
    assert.ok(performance.now() - startedMs >= 950)
    assert.equal(early.headers.get('preference-applied'), 'wait=1')
    assert.equal(early.body.state, 'PENDING')
    assert.equal((await get('return=minimal')).headers.get('preference-applied'), null)

    const waiting = trifold
      .getOrder(account, id)
      .then((order) => ({ order, lateMs: Date.now() - Date.parse(order.updated) }))
    await trifold.lab.billing.start()
    const { order, lateMs } = await waiting
    assert.equal(order.state, 'APPROVED')
    assert.ok(lateMs < MUCH_EARLIER_MS, `responded ${lateMs} ms after the outcome`)
  } finally {
    await trifold.lab.billing.start()
  }
})

test('a call to the notification service writes a notice, which can be read', async () => {
  const accountId = crypto.randomUUID()
  const orderId = crypto.randomUUID()
  const cases = [
    [{ event: 'ORDER_PAID', orderId }, `ORDER ${orderId} PAID SUCCESSFULLY`],
    [
      { event: 'PAYMENT_FAIL', orderId },
      `NOT ENOUGH MONEY on account ${accountId} for order ${orderId}`,
    ],
    [{ event: 'DEPOSIT_ACCEPTED', value: 0.07 }, `DEPOSIT 0.07 ACCEPTED ON ACCOUNT ${accountId}`],
    [
      { event: 'PAYMENT_REFUNDED', orderId, value: 65 },
      `ORDER ${orderId} REFUNDED: 65 ON ACCOUNT ${accountId}`,
    ],
  ] as const
  for (const [body, text] of cases) {
    const json = { accountId, ...body }
    const id = await trifold.read<string>('/notification/', { json }, 'POST')
    const message = await trifold.read<MessageView>(`/notification/${id}`)
    const { created, ...rest } = message
    assert.deepEqual(rest, { id, account: accountId, text, event: body.event })
    assert.ok(!Number.isNaN(Date.parse(created)))
  }
  assert.equal((await trifold.messages(accountId)).length, cases.length)
})

test('removed notices are gone, and their events do not create them again', async () => {
  // Waits until no work of the earlier tests is in flight.
  await assertInvariantsHold(trifold)
  const accountId = crypto.randomUUID()
  const key = crypto.randomUUID()
  const json = { accountId, event: 'DEPOSIT_ACCEPTED', value: 5 }
  const id = await trifold.read<string>('/notification/', { json, key }, 'POST')
  assert.equal(await trifold.read('/notification/', {}, 'DELETE'), true)
  assert.deepEqual(await trifold.read('/notification/'), [])
  assert.equal((await trifold.call('GET', `/notification/${id}`)).status, 404)
  assert.equal(await trifold.read('/notification/', { json, key }, 'POST'), id)
  assert.deepEqual(await trifold.messages(accountId), [])
})

test('leaves all invariants intact', () => assertInvariantsHold(trifold))
