import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { STYLES } from '../../contracts/style.ts'
import { type Answer, eventually, type Problem, UNIT_PRICE } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

const trifold = await startProgram()
after(() => trifold.close())

const AT_ONCE = 20

/**
 * Sends one request many times concurrently. Every response must be the same, or say that the first request is in
 * flight; after that, the stored response must come at once. Returns that response.
 */
async function sendAtOnce<Body>(status: number, send: () => Promise<Answer<Body>>): Promise<Body> {
  const answers = await Promise.all(Array.from({ length: AT_ONCE }, send))
  const final = await send()
  assert.equal(final.status, status)
  assert.ok(answers.some((answer) => answer.status === status))
  for (const answer of answers) {
    if (answer.status === 409) {
      assert.equal((answer.body as Problem).code, 'IDEMPOTENCY_KEY_IN_PROGRESS')
      assert.match(answer.headers.get('retry-after') ?? 'none', /^\d+$/)
    } else {
      assert.deepEqual([answer.status, answer.body], [final.status, final.body])
    }
  }
  return final.body
}

async function isReused(answer: Promise<Answer>): Promise<void> {
  const { status, body } = await answer
  assert.deepEqual([status, (body as Problem).code], [422, 'IDEMPOTENCY_KEY_REUSED'])
}

for (const style of STYLES) {
  test(`${style}: an order sent many times under one key is one order`, async () => {
    const account = await trifold.fundedAccount(10 * UNIT_PRICE)
    const key = crypto.randomUUID()
    const id = await sendAtOnce(201, () => trifold.order(account, { style, key }))
    assert.equal((await trifold.getOrder(account, id)).state, 'APPROVED')
    assert.equal((await trifold.orders(account)).length, 1)
    assert.equal(await trifold.balance(account), 9 * UNIT_PRICE)

    await isReused(trifold.order(account, { style, key, quantity: 2 }))
    // A key belongs to its profile: another profile can use the same key.
    const other = await trifold.fundedAccount(UNIT_PRICE)
    const { status, body: otherId } = await trifold.order(other, { style, key })
    assert.equal(status, 201)
    assert.equal((await trifold.getOrder(other, otherId)).state, 'APPROVED')
    assert.deepEqual((await trifold.order(other, { style, key })).body, otherId)
    assert.equal((await trifold.orders(account)).length, 1)
  })

  test(`${style}: a deposit sent many times under one key is one deposit`, async () => {
    const account = await trifold.createAccount()
    const key = crypto.randomUUID()
    const send = (amount: string) =>
      trifold.call('POST', `/billing/account/${account}?amount=${amount}`, { style, key })
    assert.equal(await sendAtOnce(200, () => send('12.50')), 12.5)
    await isReused(send('13'))
    await eventually(async () => assert.equal(await trifold.balance(account), 12.5))
    assert.equal((await trifold.entries(account)).length, 1)
  })
}

for (const style of ['http', 'hybrid'] as const) {
  test(`${style}: a refused order is refused again under its key, even after a deposit`, async () => {
    const account = await trifold.createAccount()
    const key = crypto.randomUUID()
    const refused = await sendAtOnce(402, () => trifold.order(account, { style, key }))
    await trifold.deposit(account, 1000)
    const again = await trifold.order(account, { style, key })
    assert.deepEqual([again.status, again.body], [402, refused])
    assert.equal((await trifold.orders(account)).length, 1)
  })
}

test('an account is created once under one key', async () => {
  const key = crypto.randomUUID()
  const create = () => trifold.call<string>('POST', '/billing/account/create', { key })
  const id = await sendAtOnce(200, create)
  assert.equal(await trifold.balance(id), 0)
  // The key of a deposit belongs to its account, so it does not collide with the same key here.
  const path = `/billing/account/${id}?amount=1`
  assert.equal((await trifold.call('POST', path, { key, style: 'http' })).body, 1)
  assert.equal((await create()).body, id)
})

test('a payment over HTTP is made once under one key', async () => {
  const account = await trifold.fundedAccount(100)
  const key = crypto.randomUUID()
  const pay = (amount: number) =>
    trifold.call<string>('POST', '/billing/account', { key, json: { accountId: account, amount } })
  const id = await sendAtOnce(200, () => pay(30))
  assert.equal((await trifold.payment(id)).state, 'PAID')
  await isReused(pay(31))
  assert.equal(await trifold.balance(account), 70)
})

test('a void is made once under one key, and refunds once', async () => {
  const account = await trifold.fundedAccount(100)
  const pay = { json: { accountId: account, amount: 30 } }
  const { body: orderId } = await trifold.call<string>('POST', '/billing/account', pay)
  const key = crypto.randomUUID()
  const path = `/billing/payments/${orderId}/void`
  const send = (json: object) => trifold.call('POST', path, { key, json })
  const voided = await sendAtOnce(200, () => send({ accountId: account }))
  assert.deepEqual(voided, { orderId, state: 'REFUNDED' })
  await isReused(send({}))
  assert.equal(await trifold.balance(account), 100)
  assert.equal((await trifold.entries(account)).length, 3)
})

test('a notice is written once under one key', async () => {
  const account = crypto.randomUUID()
  const key = crypto.randomUUID()
  const send = (value: number) =>
    trifold.call<string>('POST', '/notification/', {
      key,
      json: { accountId: account, event: 'DEPOSIT_ACCEPTED', value },
    })
  const id = await sendAtOnce(200, () => send(5))
  await isReused(send(6))
  assert.deepEqual(
    (await trifold.messages(account)).map((message) => message.id),
    [id],
  )
})

test('leaves all invariants intact', () => assertInvariantsHold(trifold))
