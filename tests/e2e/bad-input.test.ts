import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, test } from 'node:test'
import { STYLES } from '../../contracts/style.ts'
import { type Answer, type CallOptions, type Problem, UNIT_PRICE } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'
import { ON_STACK } from './world.ts'

const trifold = await startProgram()
after(() => trifold.close())

type Request = readonly [call: string, options?: CallOptions]

/** Each of these requests, named after its fault, gets the same response. */
function refuses(
  answer: readonly [status: number, code: string, field?: string],
  requests: Readonly<Record<string, Request>>,
): void {
  const [status, code, field] = answer
  for (const [what, [call, options]] of Object.entries(requests)) {
    test(`rejects ${what} with ${status} ${code}${field ? ` that names ${field}` : ''}`, async () => {
      const [method = '', path = ''] = call.split(' ')
      assertProblem(await trifold.call<Problem>(method, path, options), status, code, field)
    })
  }
}

const invalid = (field: string) => [400, 'VALIDATION_FAILED', field] as const

const mine = await trifold.fundedAccount(100)
const nobody = crypto.randomUUID()
const { body: myOrder } = await trifold.order(mine, { style: 'http' })
const listing = `/orders?profileId=${mine}`

const placing = (json: unknown): Request => [`POST ${listing}`, { json }]
const sending = (raw: string, type = 'application/json'): Request => [
  `POST ${listing}`,
  { raw, headers: { 'content-type': type } },
]
const paying = (json: object): Request => ['POST /billing/account', { json }]
const notifying = (json: object): Request => [
  'POST /notification/',
  { json: { accountId: mine, ...json } },
]
const order = { productQuantity: 1 }

refuses([404, 'ORDER_NOT_FOUND'], {
  'an unknown order': [`GET /orders/${nobody}?profileId=${mine}`],
  'an unknown order to delete': [`DELETE /orders/${nobody}?profileId=${mine}`],
})
refuses([404, 'ACCOUNT_NOT_FOUND'], {
  'an unknown account': [`GET /billing/account/${nobody}`],
  'the ledger of an unknown account': [`GET /billing/account/${nobody}/entries`],
  'a payment by an unknown account': paying({ accountId: nobody, amount: 1 }),
})
refuses([404, 'PAYMENT_NOT_FOUND'], { 'an unknown payment': [`GET /billing/payments/${nobody}`] })
refuses([404, 'MESSAGE_NOT_FOUND'], { 'an unknown message': [`GET /notification/${nobody}`] })
refuses([404, 'CONTACT_NOT_FOUND'], {
  'an unknown contact': [`GET /notification/contact/${nobody}`],
  'an unknown contact to delete': [`DELETE /notification/contact/${nobody}`],
})
refuses([404, 'ROUTE_NOT_FOUND'], {
  'an unknown path': ['GET /nowhere'],
  'a path named like a member of every object': ['GET /constructor'],
  'a path named like a member of every object, with a prefix': [
    'GET /otusapp/gur-ok/__proto__/toString',
  ],
})
refuses([405, 'METHOD_NOT_ALLOWED'], {
  'a method that the path does not support': ['PUT /orders'],
  // On the stack nginx serves these two itself, and responds differently.
  ...(!ON_STACK && {
    'a method that the index does not support': ['POST /'],
    'a method that the AsyncAPI document does not support': ['DELETE /asyncapi.json'],
  }),
  'a CORS preflight': ['OPTIONS /orders'],
  'a method that no path supports': [`PATCH /notification/${nobody}`],
})
refuses([403, 'NOT_YOURS'], {
  "somebody else's order": [`GET /orders/${myOrder}?profileId=${nobody}`],
  "somebody else's order to delete": [`DELETE /orders/${myOrder}?profileId=${nobody}`],
})

refuses([400, 'MALFORMED_JSON'], {
  'half a body': sending('{"productQuantity": 1'),
  'NaN in a body': sending('{"productQuantity": NaN}'),
})
refuses([415, 'UNSUPPORTED_MEDIA_TYPE'], {
  text: sending('productQuantity=1', 'text/plain'),
  'a form': sending('productQuantity=1', 'application/x-www-form-urlencoded'),
})
refuses([413, 'BODY_TOO_LARGE'], {
  'an oversize body': placing({ ...order, note: 'x'.repeat(70_000) }),
})
refuses(invalid('body'), {
  'no body': [`POST ${listing}`],
  'null as a body': sending('null'),
  'a list as a body': placing([order]),
  'a very deep body': sending('['.repeat(1000) + ']'.repeat(1000)),
})

refuses(invalid('body'), {
  'null as an optional body': [
    `POST /billing/payments/${nobody}/void`,
    { raw: 'null', headers: { 'content-type': 'application/json' } },
  ],
})

refuses(invalid('body/price'), { 'an extra field of an order': placing({ ...order, price: 1 }) })
refuses(invalid('body/productQuantity'), { 'an order without a quantity': placing({}) })
for (const productQuantity of [0, -1, 1.5, 1_000_001, '3', null, true, [1]]) {
  const what = `an order of ${JSON.stringify(productQuantity)}`
  refuses(invalid('body/productQuantity'), { [what]: placing({ productQuantity }) })
}
refuses(invalid('query/profileId'), {
  'an order without a profile': ['POST /orders', { json: order }],
  'an order for an invalid profile id': ['POST /orders?profileId=me', { json: order }],
  'an order for two profiles': [`POST ${listing}&profileId=${nobody}`, { json: order }],
})

refuses(invalid('params/id'), {
  'an invalid order id': [`GET /orders/17?profileId=${mine}`],
  'an invalid account id': ['GET /billing/account/17'],
  'an invalid message id': ['GET /notification/17'],
})
refuses(invalid('params/orderId'), {
  'an invalid payment id': ['GET /billing/payments/17'],
  'an invalid id of a payment to void': ['POST /billing/payments/17/void'],
})
refuses(invalid('path'), { 'a path that is badly encoded': ['GET /billing/account/%E0%A4%A'] })
refuses(invalid('query/limit'), {
  'a page of 0': [`GET ${listing}&limit=0`],
  'a page of 501': [`GET ${listing}&limit=501`],
  'a page size that is not a number': ['GET /notification/?limit=many'],
})
const lists = [
  listing,
  `/billing/account/${mine}/entries`,
  '/notification/',
  `/notification/account/${mine}`,
  ...['orders', 'billing', 'notification'].map((service) => `/${service}/dead-letters`),
]
for (const list of lists) {
  const joint = list.includes('?') ? '&' : '?'
  for (const cursor of ['-1', 'x', '9223372036854775808', '9'.repeat(19)]) {
    const what = `the cursor ${cursor} of ${list.replace(mine, 'A')}`
    refuses(invalid('query/cursor'), { [what]: [`GET ${list}${joint}cursor=${cursor}`] })
  }
  test(`accepts the largest cursor of ${list.replace(mine, 'A')}`, async () => {
    const path = `${list}${joint}cursor=${'9'.repeat(18)}`
    assert.equal((await trifold.call('GET', path)).status, 200)
  })
}
refuses(invalid('headers/idempotency-key'), {
  'an idempotency key that is too long': [`POST ${listing}`, { json: order, key: 'k'.repeat(256) }],
})
refuses([400, 'UNKNOWN_STYLE', 'headers/x-interaction-style'], {
  'an order in an unknown style': [
    `POST ${listing}`,
    { json: order, headers: { 'x-interaction-style': 'rpc' } },
  ],
  'a deposit in an unknown style': [
    `POST /billing/account/${mine}?amount=1`,
    { headers: { 'x-interaction-style': 'HTTP' } },
  ],
})

const badAmounts = ['0', '-1', '1.001', '1e12', 'NaN', 'Infinity', '', 'ten', '1,5', '9'.repeat(40)]
for (const amount of [...badAmounts, '1000000000.01']) {
  const path = `POST /billing/account/${mine}?amount=${amount}`
  refuses(invalid('query/amount'), { [`a deposit of "${amount}"`]: [path] })
}
refuses(invalid('query/amount'), {
  'a deposit without an amount': [`POST /billing/account/${mine}`],
})
for (const amount of [0, -1, 1.001, 1e12, 1e-7, 1e300, '5', null, {}, undefined]) {
  const what = `a payment of ${JSON.stringify(amount)}`
  refuses(invalid('body/amount'), { [what]: paying({ accountId: mine, amount }) })
}
refuses(invalid('body/accountId'), { 'a payment without an account': paying({ amount: 1 }) })
refuses(invalid('body/orderId'), {
  'a payment for an invalid order id': paying({ accountId: mine, amount: 1, orderId: '17' }),
})
refuses(invalid('body/why'), {
  'an extra field of a void': [`POST /billing/payments/${nobody}/void`, { json: { why: 'x' } }],
})
refuses([409, 'PAYMENT_MISMATCH'], {
  'a void in the name of another account': [
    `POST /billing/payments/${myOrder}/void`,
    { json: { accountId: nobody } },
  ],
})

refuses(invalid('body/event'), { 'an unknown event': notifying({ event: 'ORDER_LOST', value: 5 }) })
refuses(invalid('body/orderId'), {
  'an event without its order': notifying({ event: 'ORDER_PAID' }),
})
refuses(invalid('body/value'), {
  'an event without its value': notifying({ event: 'DEPOSIT_ACCEPTED' }),
  'an event with a value of zero': notifying({ event: 'DEPOSIT_ACCEPTED', value: 0 }),
})
refuses(invalid('body/text'), {
  'an extra field of an event': notifying({ event: 'DEPOSIT_ACCEPTED', value: 5, text: 'x' }),
})
for (const email of [
  'nobody',
  'jürgen@b.example',
  'a@bücher.example',
  'a@b.example\r\nbcc: c@d.example',
  `${'a'.repeat(250)}@b.example`,
]) {
  refuses(invalid('body/email'), {
    [`the address ${JSON.stringify(email).slice(0, 40)}`]: [
      `PUT /notification/contact/${mine}`,
      { json: { email } },
    ],
  })
}

test('explains why an address that is not ASCII is rejected', async () => {
  const path = `/notification/contact/${mine}`
  const { body } = await trifold.call<Problem>('PUT', path, { json: { email: 'ü@b.example' } })
  assert.match(body.detail ?? '', /must be an ASCII email address/)
})

function assertProblem(
  answer: Answer<Problem>,
  status: number,
  code: string,
  field?: string,
): void {
  const { body, headers } = answer
  assert.deepEqual([answer.status, body.code, body.field], [status, code, field])
  assert.equal(body.status, status)
  assert.equal(headers.get('content-type'), 'application/problem+json')
  assert.doesNotMatch(JSON.stringify(body), /node_modules|\.ts:|\bat [\w.]+ \(/)
}

for (const style of STYLES) {
  test(`${style}: rejects a deposit to an account that does not exist`, async () => {
    const path = `/billing/account/${nobody}?amount=1`
    const answer = await trifold.call<Problem>('POST', path, { style })
    assertProblem(answer, 404, 'ACCOUNT_NOT_FOUND')
  })
}

test('ids are case-insensitive', async () => {
  const account = await trifold.fundedAccount(UNIT_PRICE)
  const loud = account.toUpperCase()
  assert.equal(await trifold.balance(loud), UNIT_PRICE)
  const { status, body: id } = await trifold.order(loud, { style: 'http' })
  assert.equal(status, 201)
  assert.equal((await trifold.getOrder(account, id.toUpperCase())).profileId, account)
  assert.equal(await trifold.balance(account), 0)
})

test('rejects input that is not HTTP with 400, and keeps serving', async () => {
  const { hostname, port } = new URL(trifold.url)
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write('HELLO\r\n\r\n'))
    let text = ''
    socket.setEncoding('utf8').on('data', (chunk) => {
      text += chunk
    })
    socket.on('end', () => resolve(text)).on('error', reject)
  })
  assert.match(answer, /^HTTP\/1\.1 400 /)
  assert.equal((await trifold.call('GET', '/orders/health')).status, 200)
})

test('rejected requests have no effect', async () => {
  assert.equal((await trifold.orders(mine)).length, 1)
  assert.equal(await trifold.balance(mine), 100 - UNIT_PRICE)
  assert.equal((await trifold.entries(mine)).length, 2)
  assert.equal((await trifold.messages(mine)).length, 2)
})

test('leaves all invariants intact', () => assertInvariantsHold(trifold))
