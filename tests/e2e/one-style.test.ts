import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { OrderView } from '../../contracts/http.ts'
import { eventually, type Problem } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

const trifold = await startProgram({
  INTERACTION_STYLE: 'hybrid',
  ALLOW_STYLE_OVERRIDE: 'false',
  LAB: 'false',
  BASE_PATH: '/shop',
  UNIT_PRICE: '9.99',
})
after(() => trifold.close())

const newAccount = () => trifold.read<string>('/billing/account/create', {}, 'POST')
const depositPath = (account: string) => `/billing/account/${account}?amount=100`

test('requests that name no style get the style of the deployment', async () => {
  const account = await newAccount()
  await trifold.read(depositPath(account), {}, 'POST')
  const placed = await trifold.order(account)
  assert.equal(placed.status, 201)
  const order = await trifold.getOrder(account, placed.body, 0)
  assert.deepEqual([order.state, order.style, order.price], ['APPROVED', 'hybrid', 9.99])
  assert.equal(await trifold.balance(account), 90.01)
  await eventually(async () => assert.equal((await trifold.messages(account)).length, 2))
  await trifold.deleteOrder(account, placed.body)
  await eventually(async () => assert.equal((await trifold.messages(account)).length, 3))
  assert.equal(await trifold.balance(account), 100)
})

test('accepts its own style by name, and rejects other and unknown styles', async () => {
  const account = await newAccount()
  await trifold.read(depositPath(account), { style: 'hybrid' }, 'POST')
  assert.equal((await trifold.order(account, { style: 'hybrid' })).status, 201)
  for (const [name, status, code] of [
    ['http', 403, 'STYLE_OVERRIDE_FORBIDDEN'],
    ['events', 403, 'STYLE_OVERRIDE_FORBIDDEN'],
    ['soap', 400, 'UNKNOWN_STYLE'],
  ] as const) {
    const headers = { 'x-interaction-style': name, 'content-type': 'application/json' }
    const json = { productQuantity: 1 }
    for (const answer of [
      await trifold.call<Problem>('POST', `/orders?profileId=${account}`, { headers, json }),
      await trifold.call<Problem>('POST', depositPath(account), { headers }),
      await trifold.call<Problem>('POST', '/billing/account/create', { headers }),
    ]) {
      assert.deepEqual([answer.status, answer.body.code], [status, code])
      assert.equal(answer.body.field, 'headers/x-interaction-style')
    }
  }
  assert.equal((await trifold.orders(account)).length, 1)
})

test('the prefix is the configured one', async () => {
  const account = await newAccount()
  const path = `/orders?profileId=${account}`
  assert.deepEqual(await trifold.read<OrderView[]>(`/shop${path}`), [])
  assert.equal((await trifold.call('GET', `/otusapp/gur-ok${path}`)).status, 404)
})

test('without LAB there are no switches', async () => {
  for (const [method, path] of [
    ['GET', '/lab/services'],
    ['POST', '/lab/services/billing/stop'],
    ['POST', '/shop/lab/services/billing/stop'],
  ] as const) {
    const answer = await trifold.call<Problem>(method, path)
    assert.deepEqual([answer.status, answer.body.code], [404, 'ROUTE_NOT_FOUND'])
  }
  assert.equal(trifold.lab.billing.running(), true)
})

test('leaves all invariants intact', () => assertInvariantsHold(trifold))
