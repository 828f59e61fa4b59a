import assert from 'node:assert/strict'
import { after, afterEach, test } from 'node:test'
import { STYLES } from '../../contracts/style.ts'
import { eventually, type Problem, sumOf, UNIT_PRICE } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'
import { ON_STACK } from './world.ts'

const trifold = await startProgram()
after(() => trifold.close())

type SwitchName = keyof typeof trifold.lab
const off = (name: SwitchName) => trifold.lab[name].stop()
const on = (name: SwitchName) => trifold.lab[name].start()

// After a failed test, all services must be on for the next test.
afterEach(async () => {
  for (const name of ['broker', 'notification', 'billing', 'order'] as const) await on(name)
})

const textsOf = async (account: string) => (await trifold.messages(account)).map(({ text }) => text)
const depositText = (account: string, amount = 100) =>
  `DEPOSIT ${amount} ACCEPTED ON ACCOUNT ${account}`

for (const style of STYLES) {
  test(`${style}: while the notification service is off, orders are paid; each notice follows later, once`, async () => {
    const account = await trifold.fundedAccount(100)
    await off('notification')
    assert.equal((await trifold.call('GET', '/notification/')).status, 503)
    const { status, body: id } = await trifold.order(account, { style })
    assert.equal(status, 201)
    assert.equal((await trifold.getOrder(account, id)).state, 'APPROVED')
    assert.equal(await trifold.balance(account), 35)
    await on('notification')
    // No duplicate of the first notices can follow the notice of this later deposit.
    await trifold.deposit(account, 7, style)
    await eventually(async () =>
      assert.deepEqual(await textsOf(account), [
        depositText(account),
        `ORDER ${id} PAID SUCCESSFULLY`,
        depositText(account, 7),
      ]),
    )
  })
}

for (const style of ['http', 'hybrid'] as const) {
  test(`${style}: while the billing service is off, an order is canceled; its payment is voided later`, async () => {
    const account = await trifold.fundedAccount(100)
    await off('billing')
    const placed = await trifold.order(account, { style })
    assert.equal(placed.status, 503)
    assert.equal(placed.headers.get('content-type'), 'application/problem+json')
    assert.equal(placed.body.code, 'BILLING_UNREACHABLE')
    assert.equal(placed.headers.get('retry-after'), null)
    const id = placed.body.orderId as string
    const order = await trifold.getOrder(account, id, 0)
    assert.deepEqual([order.state, order.reason], ['CANCELED', 'BILLING_UNREACHABLE'])

    const canceled = `ORDER ${id} NOT PAID: billing could not be reached`
    // The customer is notified while the billing service is still off, and not again when it is back.
    const texts = [depositText(account), canceled]
    await eventually(async () => assert.deepEqual(await textsOf(account), texts))
    await on('billing')
    await eventually(async () => {
      const { status, body } = await trifold.call<{ state: string }>(
        'GET',
        `/billing/payments/${id}`,
      )
      assert.deepEqual([status, body.state], [200, 'VOIDED'])
    })
    assert.equal((await trifold.getOrder(account, id, 0)).state, 'CANCELED')
    assert.equal(await trifold.balance(account), 100)
    await trifold.deposit(account, 7, style)
    await eventually(async () => {
      assert.deepEqual(await textsOf(account), [...texts, depositText(account, 7)])
    })
  })
}

test('events: while the billing service is off, an order is PENDING; it settles when the service is back', async () => {
  const account = await trifold.fundedAccount(UNIT_PRICE)
  await off('billing')
  const placed = [
    await trifold.order(account, { style: 'events' }),
    await trifold.order(account, { style: 'events' }),
  ]
  assert.deepEqual(
    placed.map(({ status }) => status),
    [201, 201],
  )
  const ids = placed.map(({ body }) => body)
  for (const id of ids) assert.equal((await trifold.getOrder(account, id, 0)).state, 'PENDING')
  await on('billing')
  const orders = await Promise.all(ids.map((id) => trifold.getOrder(account, id)))
  assert.deepEqual(
    orders.map(({ state }) => state),
    ['APPROVED', 'CANCELED'],
  )
  assert.equal(await trifold.balance(account), 0)
})

test('events: an order deleted while PENDING stays CANCELED, and no money is missing', async () => {
  const account = await trifold.fundedAccount(100)
  await off('billing')
  const { body: id } = await trifold.order(account, { style: 'events' })
  await trifold.deleteOrder(account, id)
  const order = await trifold.getOrder(account, id, 0)
  assert.deepEqual([order.state, order.reason], ['CANCELED', 'DELETED'])
  await on('billing')
  await eventually(async () => {
    const { body } = await trifold.call<{ state?: string }>('GET', `/billing/payments/${id}`)
    assert.ok(['VOIDED', 'REFUNDED'].includes(body.state ?? ''), `the payment is ${body.state}`)
  })
  assert.equal(await trifold.balance(account), 100)
  assert.equal(sumOf(await trifold.entries(account)), 100)
  assert.equal((await trifold.getOrder(account, id, 0)).reason, 'DELETED')
})

for (const style of STYLES) {
  test(`${style}: a paid order that is deleted while the billing service is off is refunded later, once`, async () => {
    const account = await trifold.fundedAccount(100)
    const { body: id } = await trifold.order(account, { style })
    assert.equal((await trifold.getOrder(account, id)).state, 'APPROVED')
    await off('billing')
    await trifold.deleteOrder(account, id)
    assert.equal((await trifold.getOrder(account, id, 0)).state, 'CANCELED')
    await on('billing')
    await eventually(async () => {
      assert.equal(await trifold.balance(account), 100)
      assert.equal(
        (await textsOf(account)).at(-1),
        `ORDER ${id} REFUNDED: 65 ON ACCOUNT ${account}`,
      )
    })
    assert.equal((await trifold.entries(account)).length, 3)
  })

  test(`${style}: a refund at the billing service while the order service is off cancels the order later`, async () => {
    const account = await trifold.fundedAccount(100)
    const { body: id } = await trifold.order(account, { style })
    assert.equal((await trifold.getOrder(account, id)).state, 'APPROVED')
    await off('order')
    const path = `/billing/payments/${id}/void`
    assert.deepEqual(await trifold.read(path, {}, 'POST'), { orderId: id, state: 'REFUNDED' })
    await on('order')
    await eventually(async () => {
      assert.equal((await trifold.getOrder(account, id, 0)).state, 'CANCELED')
    })
    assert.equal(await trifold.balance(account), 100)
  })
}

test('events: a void that overtakes the payment request cancels the order', async () => {
  const account = await trifold.fundedAccount(100)
  await off('broker')
  const placed = [
    await trifold.order(account, { style: 'events' }),
    await trifold.order(account, { style: 'events' }),
  ]
  const ids = placed.map(({ body }) => body)
  // The first void arrives before the billing service knows the account of the order.
  for (const [id, json] of [
    [ids[0], undefined],
    [ids[1], { accountId: account }],
  ] as const) {
    const { body } = await trifold.call('POST', `/billing/payments/${id}/void`, { json })
    assert.deepEqual(body, { orderId: id, state: 'VOIDED' })
  }
  await on('broker')
  for (const id of ids) {
    const order = await trifold.getOrder(account, id)
    assert.deepEqual([order.state, order.reason], ['CANCELED', 'ORDER_CANCELED'])
  }
  await eventually(async () =>
    assert.deepEqual(await textsOf(account), [
      depositText(account),
      ...ids.map((id) => `ORDER ${id} NOT PAID: it was canceled`),
    ]),
  )
  assert.equal(await trifold.balance(account), 100)
})

test('http: the whole flow works while the broker is off', async () => {
  await off('broker')
  const account = await trifold.fundedAccount(100)
  const { status, body: id } = await trifold.order(account, { style: 'http' })
  assert.equal(status, 201)
  assert.equal((await trifold.getOrder(account, id, 0)).state, 'APPROVED')
  assert.deepEqual(await textsOf(account), [depositText(account), `ORDER ${id} PAID SUCCESSFULLY`])
  await trifold.deleteOrder(account, id)
  await eventually(async () => assert.equal((await textsOf(account)).length, 3))
  assert.equal(await trifold.balance(account), 100)
})

test('hybrid: while the broker is off, orders are paid and deposits booked; notices follow later', async () => {
  await off('broker')
  const account = await trifold.createAccount()
  assert.equal(await trifold.deposit(account, 100, 'hybrid'), 100)
  const { status, body: id } = await trifold.order(account, { style: 'hybrid' })
  assert.equal(status, 201)
  assert.equal((await trifold.getOrder(account, id, 0)).state, 'APPROVED')
  assert.equal(await trifold.balance(account), 35)
  assert.deepEqual(await textsOf(account), [])
  await on('broker')
  const paid = `ORDER ${id} PAID SUCCESSFULLY`
  await eventually(async () => {
    assert.deepEqual(await textsOf(account), [depositText(account), paid])
  })
})

test('events: while the broker is off, orders and deposits are accepted; they settle later', async () => {
  const account = await trifold.fundedAccount(100)
  await off('broker')
  assert.equal(await trifold.deposit(account, 7, 'events'), 107)
  const { status, body: id } = await trifold.order(account, { style: 'events' })
  assert.equal(status, 201)
  assert.equal((await trifold.getOrder(account, id, 0)).state, 'PENDING')
  assert.equal(await trifold.balance(account), 100)
  await on('broker')
  assert.equal((await trifold.getOrder(account, id)).state, 'APPROVED')
  await eventually(async () => {
    assert.equal(await trifold.balance(account), 42)
    assert.equal((await textsOf(account)).length, 3)
  })
})

const OVER_HTTP = 'the switches work over HTTP, from this machine only'
const skip = ON_STACK && 'only the all-in-one program has switches'

test(skip ? `${OVER_HTTP} (skipped: ${skip})` : OVER_HTTP, { skip }, async () => {
  const headers = { 'x-trifold-lab': 'true' }
  const states = await trifold.read('/lab/services', { headers })
  assert.deepEqual(states, { order: true, billing: true, notification: true, broker: true })
  const stop = '/lab/services/notification/stop'
  const forwarded = await trifold.call<Problem>('POST', stop, {
    headers: { ...headers, 'x-forwarded-for': '203.0.113.7' },
  })
  assert.deepEqual([forwarded.status, forwarded.body.code], [403, 'LOOPBACK_ONLY'])
  const bare = await trifold.call<Problem>('POST', stop)
  assert.deepEqual([bare.status, bare.body.code], [403, 'CROSS_SITE_REQUEST'])
  assert.equal(trifold.lab.notification.running(), true)

  const stopped = await trifold.read<Record<string, boolean>>(stop, { headers }, 'POST')
  assert.equal(stopped.notification, false)
  const away = await trifold.call<Problem>('GET', '/notification/health')
  assert.deepEqual([away.status, away.body.code], [503, 'SERVICE_UNAVAILABLE'])
  assert.match(away.headers.get('retry-after') ?? 'none', /^\d+$/)
  await trifold.read('/otusapp/gur-ok/lab/services/notification/start', { headers }, 'POST')
  assert.deepEqual(await trifold.read('/notification/health'), { status: 'OK' })
  const unknown = await trifold.call('POST', '/lab/services/mailer/stop', { headers })
  assert.equal(unknown.status, 404)
  const wrong = await trifold.call<Problem>('GET', stop, { headers })
  assert.deepEqual([wrong.status, wrong.headers.get('allow')], [405, 'POST'])
})

test('while the broker is off, a service is alive but not ready', async () => {
  await off('broker')
  for (const service of ['orders', 'billing', 'notification']) {
    const ready = await trifold.call<{ status: string }>(
      'GET',
      `/${service}/actuator/health/readiness`,
    )
    assert.deepEqual([ready.status, ready.body.status], [503, 'DOWN'])
    assert.equal((await trifold.call('GET', `/${service}/actuator/health/liveness`)).status, 200)
  }
  await on('broker')
  for (const service of ['orders', 'billing', 'notification']) {
    await eventually(async () => {
      assert.equal((await trifold.call('GET', `/${service}/actuator/health`)).status, 200)
    })
  }
})

const READ_ONLY =
  'a service is not ready while its database takes no writes, and ready again afterwards'
const oneConnection = ON_STACK && 'a setting of the session needs the one connection of PGlite'

test(oneConnection ? `${READ_ONLY} (skipped: ${oneConnection})` : READ_ONLY, {
  skip: oneConnection,
}, async () => {
  const { orders: database } = trifold.databases
  const statusOf = async () =>
    (await trifold.call('GET', '/orders/actuator/health/readiness')).status
  await database.query('set session characteristics as transaction read only')
  try {
    await eventually(async () => assert.equal(await statusOf(), 503))
    const refused = await trifold.call<Problem>('POST', '/billing/account/create')
    assert.deepEqual([refused.status, refused.body.code], [503, 'DATABASE_UNAVAILABLE'])
    assert.equal((await trifold.call('GET', '/orders/health')).status, 200)
  } finally {
    await database.query('set session characteristics as transaction read write')
  }
  await eventually(async () => assert.equal(await statusOf(), 200))
})

test('leaves all invariants intact', () => assertInvariantsHold(trifold))
