import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { InjectOptions } from 'fastify'
import Type from 'typebox'
import { customer, operator, type Principal, service } from '../../contracts/access.ts'
import { Fault } from '../../contracts/problems.ts'
import { systemRuntime } from '../async/runtime.ts'
import type { Auth } from '../auth/auth.ts'
import { createLog, createTelemetry } from '../telemetry/telemetry.ts'
import { createHttpServer } from './server.ts'

const ANN = '0190a0a0-0000-7000-8000-00000000000a'
const BOB = '0190a0a0-0000-7000-8000-00000000000b'
const Id = Type.Object({ id: Type.String({ format: 'uuid' }) })
const Owner = Type.Object({ profileId: Type.String({ format: 'uuid' }) })

/** Tokens of this test name the profile and the scopes, such as `ann+orders:read`. */
const auth: Auth = {
  legacyHeader: 'x-jwt-token',
  keysAgeSeconds: () => 7,
  close: async () => undefined,
  verify(token) {
    const [subject = '', ...scopes] = token.split('+')
    if (subject === 'nobody') throw new Fault('UNAUTHENTICATED', { detail: 'expired' })
    const principal: Principal = {
      issuer: 'i',
      subject,
      profileId: subject === 'ann' ? ANN : BOB,
      scopes: new Set(scopes),
      service: subject === 'billing' ? 'billing' : undefined,
    }
    return subject === 'ann' ? Promise.resolve(principal) : principal
  },
}

async function build(t: TestContext, isOn: boolean) {
  const telemetry = createTelemetry('order')
  const app = await createHttpServer({
    service: 'orders',
    title: 'Orders',
    basePath: '/',
    bodyLimitBytes: 2_048,
    rateLimitPerMinute: 0,
    readiness: {},
    telemetry,
    auth: isOn ? auth : undefined,
    log: createLog('silent', 'order'),
    runtime: systemRuntime,
  })
  t.after(() => app.close())
  const access = [
    customer('orders:read', 'query/profileId'),
    service('billing'),
    operator('operator:read'),
  ]
  app.get(
    '/orders',
    { config: { access }, schema: { operationId: 'list', querystring: Owner } },
    (request) => ({
      profileId: request.query.profileId,
      own: request.ownProfile ?? null,
    }),
  )
  app.put(
    '/orders/:id',
    { config: { access: [customer('orders:write', 'params/id')] }, schema: { params: Id } },
    async () => ({}),
  )
  const call = async (options: InjectOptions, token?: string) => {
    const headers = { ...(token && { authorization: `Bearer ${token}` }), ...options.headers }
    const response = await app.inject({ ...options, headers })
    const challenge = response.headers['www-authenticate']
    return { status: response.statusCode, challenge, body: response.json() }
  }
  return { app, call, telemetry }
}

const LIST = { url: '/orders' } as const

test('a server with a route that declares no access does not start', async (t) => {
  const { app } = await build(t, false)
  app.get('/orders/open', async () => ({}))
  await assert.rejects(
    async () => app.ready(),
    /GET \/orders\/open does not declare who may call it/,
  )
})

test('without authentication, everybody may call every route', async (t) => {
  const { call } = await build(t, false)
  const listed = await call({ url: `/orders?profileId=${ANN}` })
  assert.deepEqual([listed.status, listed.body], [200, { profileId: ANN, own: null }])
  assert.equal((await call(LIST)).body.field, 'query/profileId')
  assert.equal((await call({ method: 'PUT', url: `/orders/${BOB}` })).status, 200)
})

test('a request without a valid token gets 401 and a challenge', async (t) => {
  const { call } = await build(t, true)
  const answers = [
    await call(LIST),
    await call(LIST, 'nobody'),
    await call({ ...LIST, headers: { authorization: 'Basic YTpi' } }),
  ]
  for (const { status, challenge, body } of answers) {
    assert.deepEqual([status, body.code], [401, 'UNAUTHENTICATED'])
    assert.match(String(challenge), /^Bearer/)
  }
  const [withoutToken, invalid] = answers.map(({ challenge }) => challenge)
  assert.equal(withoutToken, 'Bearer realm="trifold"')
  assert.equal(invalid, 'Bearer realm="trifold", error="invalid_token"')
})

test('a token without the scope gets 403, which names the scope', async (t) => {
  const { call } = await build(t, true)
  const { status, body, challenge } = await call({ method: 'PUT', url: `/orders/${ANN}` }, 'ann')
  assert.deepEqual([status, body.code], [403, 'FORBIDDEN'])
  assert.match(body.detail, /orders:write/)
  assert.match(String(challenge), /error="insufficient_scope", scope="orders:write"/)
})

test('a customer reaches only the own profile, and may leave it out', async (t) => {
  const { call } = await build(t, true)
  const own = { profileId: ANN, own: ANN }
  assert.deepEqual((await call(LIST, 'ann+orders:read')).body, own)
  const upper = { url: `/orders?profileId=${ANN.toUpperCase()}` }
  assert.deepEqual((await call(upper, 'ann+orders:read')).body, own)
  const others = [
    await call({ url: `/orders?profileId=${BOB}` }, 'ann+orders:read'),
    await call({ method: 'PUT', url: `/orders/${BOB}` }, 'ann+orders:write'),
  ]
  for (const { status, body } of others) {
    assert.deepEqual([status, body.code], [403, 'NOT_YOURS'])
  }
})

test('services and operators are not limited to a profile', async (t) => {
  const { call } = await build(t, true)
  for (const token of ['billing', 'eve+operator:read', 'eve+orders:read+operator:read']) {
    const { body } = await call({ url: `/orders?profileId=${ANN}` }, token)
    assert.deepEqual(body, { profileId: ANN, own: null })
    assert.equal((await call(LIST, token)).status, 400)
  }
})

test('the legacy header is accepted and counted, and may not differ from Authorization', async (t) => {
  const { call, telemetry } = await build(t, true)
  const headers = { 'x-jwt-token': 'ann+orders:read' }
  assert.equal((await call({ ...LIST, headers })).status, 200)
  assert.equal((await call({ ...LIST, headers }, 'ann+orders:read')).status, 200)
  const differing = await call({ ...LIST, headers }, 'bob+orders:read')
  assert.deepEqual([differing.status, differing.body.code], [400, 'VALIDATION_FAILED'])
  const { body } = await telemetry.scrape()
  assert.match(body, /trifold_auth_legacy_header_total\{service="order"\} 3/)
  assert.match(body, /trifold_auth_keys_age_seconds\{service="order"\} 7/)
})

test('health needs no token and shows no details, and an unknown route stays unknown', async (t) => {
  const { call } = await build(t, true)
  assert.deepEqual((await call({ url: '/orders/actuator/health' })).body, { status: 'UP' })
  assert.equal((await call({ url: '/orders/health' })).status, 200)
  assert.equal((await call({ url: '/orders/actuator/prometheus' })).status, 401)
  assert.equal((await call({ url: '/orders/a/b/c' })).status, 404)
})

test('the document lists the scopes of each route and makes the own profile optional', async (t) => {
  const { call } = await build(t, true)
  const { body } = await call({ url: '/orders/openapi.json' })
  const { security, parameters, responses } = body.paths['/orders'].get
  assert.deepEqual(security, [
    { bearer: ['orders:read'] },
    { bearer: ['service:billing'] },
    { bearer: ['operator:read'] },
  ])
  const profile = parameters.find((one: { name?: string }) => one.name === 'profileId')
  assert.notEqual(profile.required, true)
  assert.match(responses['401'].description, /UNAUTHENTICATED/)
  assert.equal(body.components.securitySchemes.bearer.scheme, 'bearer')
  assert.equal(body.paths['/orders/health'].get.security, undefined)
})
