import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { FLOWS, type Flow, STYLES } from '../../contracts/style.ts'
import { type EntryView, eventually, sumOf, UNIT_PRICE } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

const trifold = await startProgram()
after(() => trifold.close())

const textsOf = async (account: string) => (await trifold.messages(account)).map(({ text }) => text)

for (const style of STYLES) {
  const { payment, announcement, response, deposit }: Flow = FLOWS[style]
  const respondsAtOnce = response === 'id'
  /**
   * The billing service responds to the order service after its call to the notification service, and the
   * order service responds to the customer last.
   */
  const isNotifiedFirst = !respondsAtOnce && payment === 'call' && announcement === 'call'

  test(`${style}: with enough money an order is paid, and the customer is notified`, async () => {
    const account = await trifold.fundedAccount(199)
    const placed = await trifold.order(account, { style, quantity: 3 })
    assert.equal(placed.status, 201)
    assert.match(placed.body, /^[0-9a-f-]{36}$/)
    const id = placed.body
    const paid = `ORDER ${id} PAID SUCCESSFULLY`
    if (isNotifiedFirst) assert.equal((await textsOf(account)).at(-1), paid)

    const order = await trifold.getOrder(account, id, respondsAtOnce ? undefined : 0)
    assert.equal(order.state, 'APPROVED')
    assert.equal(order.price, 195)
    assert.equal(order.style, style)
    assert.equal(order.reason, null)
    assert.equal(await trifold.balance(account), 4)
    assert.equal((await trifold.payment(id)).state, 'PAID')
    await eventually(async () => {
      assert.deepEqual(await textsOf(account), [`DEPOSIT 199 ACCEPTED ON ACCOUNT ${account}`, paid])
    })
  })

  test(`${style}: without enough money, an order is canceled and no money is taken`, async () => {
    const account = await trifold.fundedAccount(UNIT_PRICE - 0.01)
    const placed = await trifold.order(account, { style })
    if (respondsAtOnce) assert.equal(placed.status, 201)
    else {
      assert.equal(placed.status, 402)
      assert.equal(placed.body.code, 'NOT_ENOUGH_MONEY')
      assert.equal(placed.headers.get('content-type'), 'application/problem+json')
    }
    const id = respondsAtOnce ? placed.body : placed.body.orderId!
    const refused = `NOT ENOUGH MONEY on account ${account} for order ${id}`
    if (isNotifiedFirst) assert.equal((await textsOf(account)).at(-1), refused)

    const order = await trifold.getOrder(account, id)
    assert.equal(order.state, 'CANCELED')
    assert.equal(order.reason, 'NOT_ENOUGH_MONEY')
    assert.equal((await trifold.payment(id)).state, 'REFUSED')
    assert.equal(await trifold.balance(account), 64.99)
    await eventually(async () => assert.equal((await textsOf(account)).at(-1), refused))
  })

  test(`${style}: an order for an account that does not exist is canceled with that reason`, async () => {
    const nobody = crypto.randomUUID()
    const placed = await trifold.order(nobody, { style })
    assert.equal(placed.status, respondsAtOnce ? 201 : 404)
    if (!respondsAtOnce) assert.equal(placed.body.code, 'ACCOUNT_NOT_FOUND')
    const id = respondsAtOnce ? placed.body : placed.body.orderId!
    const order = await trifold.getOrder(nobody, id)
    assert.equal(order.state, 'CANCELED')
    assert.equal(order.reason, 'ACCOUNT_NOT_FOUND')
    await eventually(async () => {
      assert.deepEqual(await textsOf(nobody), [`NO SUCH ACCOUNT ${nobody} for order ${id}`])
    })
  })

  test(`${style}: the response to a deposit is the balance after it`, async () => {
    const account = await trifold.createAccount()
    assert.equal(await trifold.balance(account), 0)
    assert.equal(await trifold.deposit(account, 199, style), 199)
    const isBooked = deposit === 'booked'
    if (isBooked) assert.equal(await trifold.balance(account), 199)
    if (isBooked && announcement === 'call') assert.equal((await textsOf(account)).length, 1)
    assert.equal(await trifold.deposit(account, 0.1, style), 199.1)
    assert.equal(await trifold.deposit(account, 0.2, style), 199.3)
    await eventually(async () => {
      assert.equal(await trifold.balance(account), 199.3)
      assert.deepEqual(
        await textsOf(account),
        [199, 0.1, 0.2].map((value) => `DEPOSIT ${value} ACCEPTED ON ACCOUNT ${account}`),
      )
    })
  })

  test(`${style}: concurrent deposits get different balances as responses`, async () => {
    const account = await trifold.createAccount()
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => trifold.deposit(account, 10, style)),
    )
    assert.deepEqual(
      answers.sort((a, b) => a - b),
      Array.from({ length: 20 }, (_, index) => (index + 1) * 10),
    )
    await eventually(async () => assert.equal(await trifold.balance(account), 200))
  })

  test(`${style}: a paid order that is deleted is refunded, once`, async () => {
    const account = await trifold.fundedAccount(100)
    const { body: id } = await trifold.order(account, { style })
    assert.equal((await trifold.getOrder(account, id)).state, 'APPROVED')
    assert.equal(await trifold.deleteOrder(account, id), id)
    assert.equal(await trifold.deleteOrder(account, id), id)

    const order = await trifold.getOrder(account, id)
    assert.equal(order.state, 'CANCELED')
    assert.equal(order.reason, 'DELETED')
    await eventually(async () => {
      assert.equal(await trifold.balance(account), 100)
      assert.equal((await trifold.payment(id)).state, 'REFUNDED')
      assert.deepEqual(await textsOf(account), [
        `DEPOSIT 100 ACCEPTED ON ACCOUNT ${account}`,
        `ORDER ${id} PAID SUCCESSFULLY`,
        `ORDER ${id} REFUNDED: 65 ON ACCOUNT ${account}`,
      ])
    })
    const entries = await trifold.readAll<EntryView>(`/billing/account/${account}/entries`, 2)
    assert.deepEqual(
      entries.map(({ version, kind, amount, balanceAfter, orderId }) => [
        version,
        kind,
        amount,
        balanceAfter,
        orderId,
      ]),
      [
        [1, 'DEPOSIT', 100, 100, null],
        [2, 'PAYMENT', -65, 35, id],
        [3, 'REFUND', 65, 100, id],
      ],
    )
    assert.equal(sumOf(entries), 100)
  })

  test(`${style}: a refund made directly at the billing service cancels the order`, async () => {
    const account = await trifold.fundedAccount(UNIT_PRICE)
    const { body: id } = await trifold.order(account, { style })
    assert.equal((await trifold.getOrder(account, id)).state, 'APPROVED')
    const path = `/billing/payments/${id}/void`
    const refunded = await trifold.call('POST', path, { json: { accountId: account } })
    assert.deepEqual([refunded.status, refunded.body], [200, { orderId: id, state: 'REFUNDED' }])
    // A second refund changes nothing.
    assert.deepEqual((await trifold.call('POST', path)).body, { orderId: id, state: 'REFUNDED' })
    await eventually(async () => {
      const [order] = await trifold.orders(account)
      assert.equal(order?.state, 'CANCELED')
      assert.equal(
        (await textsOf(account)).at(-1),
        `ORDER ${id} REFUNDED: 65 ON ACCOUNT ${account}`,
      )
    })
    assert.equal(await trifold.balance(account), UNIT_PRICE)
    assert.equal((await trifold.entries(account)).length, 3)
  })

  test(`${style}: of two concurrent orders with money for one, one is paid`, async () => {
    const account = await trifold.fundedAccount(UNIT_PRICE + 30)
    const placed = await Promise.all([
      trifold.order(account, { style }),
      trifold.order(account, { style }),
    ])
    if (!respondsAtOnce) {
      assert.deepEqual(placed.map(({ status }) => status).sort(), [201, 402])
    }
    const states = await eventually(async () => {
      const found = (await trifold.orders(account)).map(({ state }) => state)
      assert.ok(!found.includes('PENDING'))
      return found
    })
    assert.deepEqual(states.sort(), ['APPROVED', 'CANCELED'])
    assert.equal(await trifold.balance(account), 30)
  })
}

test('a void that arrives first refuses a payment over HTTP that arrives later', async () => {
  const account = await trifold.fundedAccount(100)
  for (const json of [undefined, { accountId: account }]) {
    const orderId = crypto.randomUUID()
    const voided = await trifold.call('POST', `/billing/payments/${orderId}/void`, { json })
    assert.deepEqual([voided.status, voided.body], [200, { orderId, state: 'VOIDED' }])
    const paid = await trifold.call<{ code: string; reason: string }>('POST', '/billing/account', {
      json: { accountId: account, amount: 10, orderId },
    })
    assert.deepEqual([paid.status, paid.body.code], [409, 'PAYMENT_VOIDED'])
    assert.equal((await trifold.payment(orderId)).state, 'VOIDED')
  }
  assert.equal(await trifold.balance(account), 100)
})

test('a payment over HTTP is made once for its order, and a refused one states its reason', async () => {
  const account = await trifold.fundedAccount(100)
  const orderId = crypto.randomUUID()
  const pay = (json: object) =>
    trifold.call<string & { code: string }>('POST', '/billing/account', { json })
  const first = await pay({ accountId: account, amount: 60.5, orderId })
  assert.equal(first.status, 200)
  assert.equal((await trifold.payment(orderId)).id, first.body)
  assert.equal((await pay({ accountId: account, amount: 60.5, orderId })).body, first.body)
  const other = await pay({ accountId: account, amount: 60, orderId })
  assert.deepEqual([other.status, other.body.code], [409, 'PAYMENT_MISMATCH'])
  assert.equal(await trifold.balance(account), 39.5)

  const tooMuch = await pay({ accountId: account, amount: 40 })
  assert.deepEqual([tooMuch.status, tooMuch.body.code], [402, 'NOT_ENOUGH_MONEY'])
  assert.equal((await pay({ accountId: account, amount: 39.5 })).status, 200)
  assert.equal(await trifold.balance(account), 0)
})

test('leaves all invariants intact', () => assertInvariantsHold(trifold))
