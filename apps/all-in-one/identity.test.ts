import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  CUSTOMER_SCOPES,
  type Grant,
  SCOPES,
  type ServiceName,
  serviceScope,
} from '../../contracts/access.ts'
import { STYLES } from '../../contracts/style.ts'
import { until } from '../../platform/async/until.ts'
import type { RouteAccess } from '../../platform/http/access.ts'
import { readConfig } from '../../platform/process/config.ts'
import { temporaryFolder } from '../../tests/e2e/program.ts'
import { AUTH_SETTINGS, newKey, sign, writeKeys } from '../../tests/support/tokens.ts'
import { allInOneConfig } from './config.ts'
import { type Program, startAllInOne } from './program.ts'

const ANN = '0190a0a0-0000-7000-8000-00000000000a'
const BOB = '0190a0a0-0000-7000-8000-00000000000b'
const ABSENT = '0190a0a0-0000-7000-8000-00000000000f'
const SERVICES: readonly ServiceName[] = ['order', 'billing', 'notification']
const NOW = Math.floor(Date.now() / 1_000)
const CUSTOMER = CUSTOMER_SCOPES.join(' ')
const PROVIDER = 'deposits:write'

const key = await newKey('one', 'RS256')
const { folder, remove } = await temporaryFolder()
let program: Program

before(async () => {
  const keys = join(folder, 'keys.json')
  await writeKeys(keys, key)
  program = await start({
    DATA_DIR: folder,
    AUTH_JWKS_FILE: keys,
    AUTH_LEGACY_HEADER: 'x-jwt-token',
  })
})
after(async () => {
  await program.close()
  await remove()
})

const start = (settings: Readonly<Record<string, string>>) =>
  startAllInOne(
    readConfig(allInOneConfig, { PORT: '0', LOG_LEVEL: 'silent', ...AUTH_SETTINGS, ...settings }),
  )

interface Request {
  readonly token?: string
  readonly body?: object | undefined
  readonly headers?: Readonly<Record<string, string>>
}

async function call(method: string, path: string, { token, body, headers = {} }: Request = {}) {
  const response = await fetch(program.url + path, {
    method,
    redirect: 'manual',
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  const isJson = /json/.test(response.headers.get('content-type') ?? '')
  // biome-ignore lint/suspicious/noExplicitAny: each response has its own shape.
  const parsed: any = isJson && text !== '' ? JSON.parse(text) : text
  return { status: response.status, body: parsed, headers: response.headers }
}

const tokenOf = (sub: string, scope: string) => sign(key, { sub, scope })
const ann = await tokenOf(ANN, CUSTOMER)
const bob = await tokenOf(BOB, CUSTOMER)
const provider = await tokenOf('provider', PROVIDER)
const tokenOfService = (name: ServiceName) => tokenOf(`client-of-${name}`, serviceScope(name))

/** Tokens that no route with limited access may admit. */
const BAD_TOKENS: Readonly<Record<string, string | undefined>> = {
  'no token': undefined,
  expired: await sign(key, { sub: ANN, scope: CUSTOMER, exp: NOW - 60 }),
  'not yet valid': await sign(key, { sub: ANN, scope: CUSTOMER, nbf: NOW + 600 }),
  'wrong audience': await sign(key, { sub: ANN, scope: CUSTOMER, aud: 'other' }),
  'wrong issuer': await sign(key, { sub: ANN, scope: CUSTOMER, iss: 'https://other.test' }),
  'alg: none': `${encode({ alg: 'none' })}.${ann.split('.')[1]}.`,
  'HS256 with the public key': await sign(
    { ...key, alg: 'HS256', privateKey: new TextEncoder().encode(JSON.stringify(key.jwk)) },
    { sub: ANN, scope: CUSTOMER },
  ),
  'key of a stranger': await sign(await newKey('one', 'RS256'), { sub: ANN, scope: CUSTOMER }),
}

function encode(header: object): string {
  return Buffer.from(JSON.stringify(header)).toString('base64url')
}

/** What belongs to Ann. */
interface Things {
  readonly orderId: string
  readonly messageId: string
}

let things: Promise<Things> | undefined
const annsThings = () => {
  things ??= createThings()
  return things
}

async function createThings(): Promise<Things> {
  const account = await call('POST', '/billing/account/create', { token: ann })
  assert.deepEqual([account.status, account.body], [200, ANN])
  const deposit = await call('POST', `/billing/account/${ANN}?amount=10000`, { token: provider })
  assert.equal(deposit.status, 200)
  const headers = { 'x-interaction-style': 'http' }
  const order = await call('POST', '/orders', { token: ann, headers, body: { productQuantity: 1 } })
  assert.equal(order.status, 201)
  let messageId = ''
  await until(async () => {
    const { body } = await call('GET', `/notification/account/${ANN}`, { token: ann })
    messageId = body[0]?.id
    return messageId !== undefined
  })
  return { orderId: order.body, messageId }
}

const BODIES: Readonly<Record<string, object>> = {
  'POST /orders': { productQuantity: 1 },
  'POST /billing/account': { accountId: ANN, amount: 1 },
  'POST /notification': { accountId: ANN, event: 'DEPOSIT_ACCEPTED', value: 1 },
  'PUT /notification/contact/:accountId': { email: 'ann@example.org' },
}

/** A valid request for the route, about what belongs to Ann. */
function requestFor({ method, url, access }: RouteAccess, { orderId, messageId }: Things) {
  const own = url.startsWith('/billing/account')
    ? ANN
    : url === '/notification/:id'
      ? messageId
      : orderId
  const id = url.includes('dead-letters') ? ABSENT : own
  const path = url.replace(':accountId', ANN).replace(':orderId', orderId).replace(':id', id)
  const names = grantsOf(access).flatMap((grant) => ('own' in grant ? grant.own : []))
  const query = names.includes('query/profileId') ? `profileId=${ANN}` : 'amount=1'
  return { path: `${path}?${query}`, body: BODIES[`${method} ${url}`] }
}

const grantsOf = (access: RouteAccess['access']): readonly Grant[] =>
  access === 'public' ? [] : access

const routes = () => program.routes().filter(({ url }) => !url.includes('*'))
const limited = () => routes().filter(({ access }) => access !== 'public')

async function statusAndCode(route: RouteAccess, token: string | undefined) {
  const { path, body } = requestFor(route, await annsThings())
  const answer = await call(route.method, path, { ...(token && { token }), body })
  // A HEAD has no body.
  return { status: answer.status, code: answer.body?.code, headers: answer.headers }
}

const nameOf = ({ method, url }: RouteAccess) => `${method} ${url}`

test('every route of the three services is in the table, most of them limited', () => {
  assert.ok(routes().length > 40, String(routes().length))
  const open = routes().flatMap((route) => (route.access === 'public' ? nameOf(route) : []))
  const isExpected = (name: string) =>
    /\/(health|liveness|readiness|openapi\.json|docs.*)$/.test(name)
  assert.deepEqual(
    open.filter((name) => !isExpected(name)),
    [],
  )
})

for (const [what, token] of Object.entries(BAD_TOKENS)) {
  test(`${what}: every limited route responds with 401 and a challenge`, async () => {
    for (const route of limited()) {
      const { status, code, headers } = await statusAndCode(route, token)
      assert.equal(status, 401, nameOf(route))
      if (route.method !== 'HEAD') assert.equal(code, 'UNAUTHENTICATED', nameOf(route))
      assert.match(headers.get('www-authenticate') ?? '', /^Bearer /, nameOf(route))
    }
  })
}

test('missing scope: every limited route responds with 403', async () => {
  const token = await tokenOf(ANN, 'openid email')
  for (const route of limited()) {
    const { status, code } = await statusAndCode(route, token)
    assert.equal(status, 403, nameOf(route))
    if (route.method !== 'HEAD') assert.equal(code, 'FORBIDDEN', nameOf(route))
  }
})

test('each scope alone opens only the routes that list it', async () => {
  for (const scope of Object.keys(SCOPES)) {
    const token = await tokenOf(BOB, scope)
    for (const route of limited()) {
      if (grantsOf(route.access).some((grant) => 'scope' in grant && grant.scope === scope))
        continue
      const { status } = await statusAndCode(route, token)
      assert.equal(status, 403, `${scope}: ${nameOf(route)}`)
    }
  }
})

test('another profile: every route for customers responds with 403 NOT_YOURS', async () => {
  for (const route of limited()) {
    if (!grantsOf(route.access).some(({ role }) => role === 'customer')) continue
    const { status, code } = await statusAndCode(route, bob)
    // This route has no profile: it opens the caller's own account.
    if (nameOf(route) === 'POST /billing/account/create') {
      assert.equal(status, 200)
      continue
    }
    assert.equal(status, 403, nameOf(route))
    if (route.method !== 'HEAD') assert.equal(code, 'NOT_YOURS', nameOf(route))
  }
})

test('the token of a service opens only the routes that name the service', async () => {
  for (const name of SERVICES) {
    const token = await tokenOfService(name)
    for (const route of limited()) {
      const isNamed = grantsOf(route.access).some(
        (grant) => grant.role === 'service' && grant.names.includes(name),
      )
      const { status } = await statusAndCode(route, token)
      const what = `${name}: ${nameOf(route)}`
      if (isNamed) assert.ok(status !== 401 && status !== 403, `${what}: ${status}`)
      else assert.equal(status, 403, what)
    }
  }
})

test('without a token, every public route responds', async () => {
  for (const route of routes()) {
    if (route.access !== 'public') continue
    const { status } = await statusAndCode(route, undefined)
    assert.ok(status < 400, `${nameOf(route)}: ${status}`)
  }
})

test('a valid token is admitted by every route that lists its scope', async () => {
  const last = (route: RouteAccess) => Number(route.method === 'DELETE')
  for (const route of limited().sort((a, b) => last(a) - last(b))) {
    for (const grant of grantsOf(route.access)) {
      if (grant.role === 'service') continue
      const token = await tokenOf(grant.role === 'customer' ? ANN : 'operator', grant.scope)
      const { status } = await statusAndCode(route, token)
      const what = `${nameOf(route)} with ${grant.scope}: ${status}`
      assert.ok(status !== 401 && status !== 403 && status < 500, what)
    }
  }
})

const placeOrder = async (style: string, more: Request = {}) => {
  const headers = { 'x-interaction-style': style, ...more.headers }
  await annsThings()
  return call('POST', '/orders', { token: ann, body: { productQuantity: 1 }, ...more, headers })
}

for (const style of STYLES) {
  test(`${style}: an order is paid and announced with the services' own tokens`, async () => {
    const { status, body: orderId } = await placeOrder(style)
    assert.equal(status, 201)
    const path = `/orders/${orderId}`
    const order = await call('GET', path, { token: ann, headers: { prefer: 'wait=10' } })
    assert.deepEqual([order.body.state, order.body.profileId], ['APPROVED', ANN])
    const payment = await call('GET', `/billing/payments/${orderId}`, { token: ann })
    assert.equal(payment.body.accountId, ANN)
    const isAnnounced = async () => {
      const { body } = await call('GET', `/notification/account/${ANN}?limit=500`, { token: ann })
      return body.some(({ text }: { text: string }) => text.includes(orderId))
    }
    await until(isAnnounced)
  })
}

test("a customer's void with the key of the order service's void counts as the customer's", async () => {
  const { body: orderId } = await placeOrder('http')
  const path = `/billing/payments/${orderId}/void`
  const headers = {
    'idempotency-key': `${orderId}/ORDER_CANCELED`,
    'x-interaction-style': 'http',
  }
  // Only the order service may name an account that did not pay.
  const ofBob = await call('POST', path, { token: ann, headers, body: { accountId: BOB } })
  assert.deepEqual([ofBob.status, ofBob.body.code], [409, 'PAYMENT_MISMATCH'])
  const voided = await call('POST', path, { token: ann, headers })
  assert.deepEqual([voided.status, voided.body.state], [200, 'REFUNDED'])
  await until(async () => {
    const { body } = await call('GET', `/orders/${orderId}`, { token: ann })
    return body.state === 'CANCELED'
  })
})

test('two customers may use the same key', async () => {
  const headers = { 'idempotency-key': 'the same key' }
  const opened = await Promise.all(
    [ann, bob].map((token) => call('POST', '/billing/account/create', { token, headers })),
  )
  assert.deepEqual(
    opened.map(({ body }) => body),
    [ANN, BOB],
  )
  const orders = await Promise.all(
    [ann, bob].map((token) => placeOrder('events', { token, headers })),
  )
  assert.deepEqual(
    orders.map(({ status }) => status),
    [201, 201],
  )
  assert.notEqual(orders[0]!.body, orders[1]!.body)
})

test('a customer cannot take the payment of an order before the order service', async () => {
  const body = { accountId: BOB, amount: 1, orderId: ABSENT }
  const paid = await call('POST', '/billing/account', { token: bob, body })
  assert.deepEqual([paid.status, paid.body.code], [403, 'NOT_YOURS'])
  const voided = await call('POST', `/billing/payments/${ABSENT}/void`, { token: bob })
  assert.deepEqual([voided.status, voided.body.code], [403, 'NOT_YOURS'])
  const { status } = await call('GET', `/billing/payments/${ABSENT}`, { token: ann })
  assert.equal(status, 404)
})

test('accepts the token in the legacy header, and verifies it', async () => {
  await annsThings()
  const own = await call('GET', `/billing/account/${ANN}`, { headers: { 'x-jwt-token': ann } })
  assert.equal(own.status, 200)
  const forged = BAD_TOKENS['alg: none'] as string
  const rejected = await call('GET', '/orders', { headers: { 'x-jwt-token': forged } })
  assert.equal(rejected.status, 401)
})

test('the lab is closed', async () => {
  const headers = { 'x-trifold-lab': 'true' }
  assert.equal((await call('POST', '/lab/services/billing/stop', { headers })).status, 404)
})
