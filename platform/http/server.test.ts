// This file is long because each behavior of the server has its own test.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, createServer, get, type Server, request as send } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { InjectOptions } from 'fastify'
import Type from 'typebox'
import { Fault, PROBLEMS, type ProblemCode } from '../../contracts/problems.ts'
import { systemRuntime } from '../async/runtime.ts'
import { DatabaseError } from '../database/database.ts'
import { networksOf } from '../process/config-formats.ts'
import { createLog, createTelemetry } from '../telemetry/telemetry.ts'
import { noTracing, type SpanStart, type Tracer } from '../telemetry/tracing.ts'
import { createHttpServer, type HttpServerOptions, isLoopback } from './server.ts'

const UUID = '0190a0a0-0000-7000-8000-00000000000a'
const PREFIX = '/otusapp/gur-ok'
const Profile = Type.Object({ profileId: Type.String({ format: 'uuid' }) })
const Item = Type.Object(
  { productQuantity: Type.Integer({ minimum: 1, maximum: 9 }), tag: Type.Optional(Type.String()) },
  { additionalProperties: false },
)

/** Creates a server with a few routes, and collects its log lines. */
async function build(t: TestContext, options: Partial<HttpServerOptions> = {}) {
  const lines: Record<string, unknown>[] = []
  const write = (line: string) => void lines.push(JSON.parse(line))
  const app = await createHttpServer({
    service: 'orders',
    title: 'Orders',
    basePath: PREFIX,
    bodyLimitBytes: 2048,
    rateLimitPerMinute: 0,
    log: createLog('debug', 'order', { write }),
    telemetry: createTelemetry('order'),
    readiness: {},
    runtime: systemRuntime,
    ...options,
  })
  app.addHook('onRoute', (route) => {
    route.config = { access: 'public', ...route.config }
  })
  t.after(() => {
    app.server.closeAllConnections()
    return app.close()
  })
  app.post(
    '/orders',
    { schema: { querystring: Profile, body: Item, response: { 201: Type.String() } } },
    async (request, reply) => {
      reply.code(201)
      return `${request.query.profileId} ${request.body.productQuantity.toFixed(1)}`
    },
  )
  const Page = Type.Object({
    limit: Type.Integer({ minimum: 1, maximum: 50, default: 20 }),
    deep: Type.Optional(Type.Boolean()),
  })
  app.get(
    '/orders/:id',
    { schema: { params: Type.Object({ id: Type.String({ format: 'uuid' }) }), querystring: Page } },
    async (request) => ({
      ...request.params,
      ...request.query,
      trace: request.trace,
    }),
  )
  app.post(
    '/orders/void',
    { schema: { body: Type.Optional(Item) } },
    async ({ body }) => body ?? {},
  )
  app.post('/orders/create', async (request) => ({ body: request.body ?? null }))
  return { app, lines }
}

type Built = Awaited<ReturnType<typeof build>>

async function problemOf(app: Built['app'], call: InjectOptions | string) {
  const answer = await app.inject(call)
  assert.equal(answer.headers['content-type'], 'application/problem+json')
  const problem = answer.json() as Record<string, unknown> & { code: ProblemCode; field?: string }
  assert.equal(answer.statusCode, PROBLEMS[problem.code].status)
  assert.equal(problem.status, answer.statusCode)
  assert.equal(problem.instance, answer.headers['x-request-id'])
  return { problem, headers: answer.headers }
}

test('the server responds with and without the prefix and a trailing slash', async (t) => {
  const { app } = await build(t)
  for (const path of ['', '/', `?a=1`, `/?a=1`]) {
    for (const prefix of ['', PREFIX]) {
      const url = `${prefix}/orders/${UUID}${path}`
      assert.equal((await app.inject(url)).json().id, UUID, url)
    }
  }
  const outside = [
    '/otusapp',
    '/otusapp/gur-ok-more/orders/health',
    `${PREFIX}${PREFIX}/orders/health`,
  ]
  for (const url of [PREFIX, `${PREFIX}?a`, ...outside]) {
    assert.equal((await problemOf(app, url)).problem.code, 'ROUTE_NOT_FOUND', url)
  }
})

test('the server reads numbers and booleans from the query, fills in defaults, and ignores unknown parameters', async (t) => {
  const { app } = await build(t)
  const { trace: _, ...plain } = (await app.inject(`/orders/${UUID}?utm=x&__proto__=y`)).json()
  assert.deepEqual(plain, { id: UUID, limit: 20 })
  const { limit, deep } = (await app.inject(`/orders/${UUID}?limit=7&deep=1`)).json()
  assert.deepEqual({ limit, deep }, { limit: 7, deep: true })
})

test('the server converts UUIDs to lower case, and sends a string as JSON if the schema says so', async (t) => {
  const { app } = await build(t)
  const url = `/orders?profileId=${UUID.toUpperCase()}`
  const answer = await app.inject({ method: 'POST', url, payload: { productQuantity: 3 } })
  assert.equal(answer.statusCode, 201)
  assert.equal(answer.headers['content-type'], 'application/json; charset=utf-8')
  assert.equal(answer.body, `"${UUID} 3.0"`)
})

test('the server names the invalid field in the problem', async (t) => {
  const { app } = await build(t)
  const url = `/orders?profileId=${UUID}`
  const bodies: [unknown, string, string][] = [
    [{ productQuantity: '3' }, 'body/productQuantity', 'must be an integer from 1 to 9'],
    [{ productQuantity: 10 }, 'body/productQuantity', 'must be an integer from 1 to 9'],
    [{ productQuantity: 1.5 }, 'body/productQuantity', 'must be an integer from 1 to 9'],
    [{ productQuantity: 3, extra: 1 }, 'body/extra', 'is not a known field'],
    [{ productQuantity: 3, tag: null }, 'body/tag', 'must be text'],
    [{}, 'body/productQuantity', 'is required'],
    [[], 'body', 'must be an object'],
  ]
  for (const [payload, field, words] of bodies) {
    const { problem } = await problemOf(app, { method: 'POST', url, payload: payload as object })
    assert.equal(problem.code, 'VALIDATION_FAILED')
    assert.equal(problem.field, field)
    assert.equal(problem.detail, `${field} ${words}`)
  }
  const urls: [string, string][] = [
    [`/orders/${UUID}?limit=0`, 'query/limit'],
    [`/orders/${UUID}?limit=1e1`, 'query/limit'],
    [`/orders/${UUID}?limit=`, 'query/limit'],
    [`/orders/${UUID}?deep=yes`, 'query/deep'],
    [`/orders/${UUID}?limit=1&limit=1`, 'query/limit'],
    [`/orders/${UUID}?other=1&other=1`, 'query/other'],
    ['/orders/42', 'params/id'],
    ['/orders/%zz', 'path'],
    [`/orders/${'a'.repeat(200)}`, 'path'],
  ]
  for (const [url, field] of urls) {
    const { problem } = await problemOf(app, url)
    assert.equal(problem.code, 'VALIDATION_FAILED', url)
    assert.equal(problem.field, field)
  }
})

test('the server rejects unreadable bodies, each with the problem that applies', async (t) => {
  const { app } = await build(t)
  const url = `/orders?profileId=${UUID}`
  const json = { 'content-type': 'application/json' }
  const deep = `${'{"a":'.repeat(100)}1${'}'.repeat(100)}`
  const cases: [ProblemCode, string | Buffer | undefined, Record<string, string>][] = [
    ['MALFORMED_JSON', '{"a"', json],
    ['MALFORMED_JSON', Buffer.from([0x22, 0xff, 0x22]), json],
    ['VALIDATION_FAILED', deep, json],
    ['VALIDATION_FAILED', undefined, {}],
    ['VALIDATION_FAILED', '', json],
    ['VALIDATION_FAILED', 'null', json],
    ['UNSUPPORTED_MEDIA_TYPE', '{}', { 'content-type': 'text/plain' }],
    ['UNSUPPORTED_MEDIA_TYPE', '{}', { 'content-type': 'no type' }],
    ['UNSUPPORTED_MEDIA_TYPE', '{}', {}],
    ['BODY_TOO_LARGE', JSON.stringify('x'.repeat(3000)), json],
  ]
  for (const [code, payload, headers] of cases) {
    const { problem } = await problemOf(app, { method: 'POST', url, payload, headers })
    assert.equal(problem.code, code, String(payload))
  }
})

test('a route without a body accepts no body, an empty body and {}', async (t) => {
  const { app } = await build(t)
  const url = '/orders/create'
  const json = { 'content-type': 'application/json' }
  const form = { 'content-type': 'application/x-www-form-urlencoded' }
  for (const [payload, headers] of [
    [undefined, {}],
    ['', json],
    ['', form],
    ['{}', json],
  ] as const) {
    const answer = await app.inject({ method: 'POST', url, payload, headers })
    assert.equal(answer.statusCode, 200)
    assert.deepEqual(answer.json(), { body: payload === '{}' ? {} : null })
  }
})

test('a route with an optional body accepts no body and an empty body, but not null', async (t) => {
  const { app } = await build(t)
  const call = { method: 'POST', url: '/orders/void' } as const
  const headers = { 'content-type': 'application/json' }
  assert.equal((await app.inject(call)).statusCode, 200)
  assert.equal((await app.inject({ ...call, headers, payload: '' })).statusCode, 200)
  const { problem } = await problemOf(app, { ...call, headers, payload: 'null' })
  assert.equal(problem.code, 'VALIDATION_FAILED')
  assert.equal(problem.field, 'body')
})

test('errors become problems, and only unexpected ones are logged with their stack', async (t) => {
  const { app, lines } = await build(t)
  const errors: Record<string, Error> = {
    ORDER_NOT_FOUND: new Fault('ORDER_NOT_FOUND', { orderId: UUID }),
    IDEMPOTENCY_KEY_IN_PROGRESS: new Fault('IDEMPOTENCY_KEY_IN_PROGRESS'),
    DATABASE_UNAVAILABLE: new DatabaseError('connection refused', 'unavailable'),
    INTERNAL: new Error('the secret of the house'),
  }
  app.get('/orders/fail/:name', async (request) => {
    throw errors[(request.params as { name: string }).name]
  })
  app.get('/orders/conflict', async () => {
    throw new DatabaseError('deadlock', 'conflict', '40P01')
  })
  app.get('/orders/invalid', async () => {
    throw new DatabaseError('no such column', 'invalid', '42703')
  })
  for (const code of Object.keys(errors)) {
    const { problem, headers } = await problemOf(app, `/orders/fail/${code}`)
    assert.equal(problem.code, code)
    const isSoon = code === 'IDEMPOTENCY_KEY_IN_PROGRESS' || code === 'DATABASE_UNAVAILABLE'
    assert.equal(headers['retry-after'], isSoon ? '1' : undefined)
    assert.doesNotMatch(JSON.stringify(problem), /secret|refused|stack|\.ts/)
  }
  assert.equal((await problemOf(app, '/orders/conflict')).problem.code, 'DATABASE_UNAVAILABLE')
  assert.equal((await problemOf(app, '/orders/invalid')).problem.code, 'INTERNAL')
  const logged = lines.filter(({ level }) => level === 'error') as { err: Error }[]
  assert.deepEqual(
    logged.map(({ err }) => err.message),
    ['the secret of the house', 'no such column'],
  )
  assert.match(logged[0]!.err.stack ?? '', /http\/server\.test\.ts/)
})

test('a handler that takes too long gets 503', async (t) => {
  const { app } = await build(t)
  app.get('/orders/slow', { handlerTimeout: 20 }, () => new Promise(() => {}))
  const { problem, headers } = await problemOf(app, '/orders/slow')
  assert.equal(problem.code, 'SERVICE_UNAVAILABLE')
  assert.equal(headers['retry-after'], '1')
})

test('responses have headers that keep a browser from running them', async (t) => {
  const { app } = await build(t)
  for (const url of [`/orders/${UUID}`, '/nowhere']) {
    const { headers } = await app.inject(url)
    assert.equal(headers['x-content-type-options'], 'nosniff')
    assert.match(String(headers['content-security-policy']), /default-src 'none'/)
    assert.equal(headers['x-powered-by'], undefined)
  }
})

test('the server keeps a valid request id, replaces any other, and logs it in every line', async (t) => {
  const { app, lines } = await build(t)
  const url = `/orders/${UUID}`
  const kept = await app.inject({ url, headers: { 'x-request-id': 'a-1.b_2' } })
  assert.equal(kept.headers['x-request-id'], 'a-1.b_2')
  assert.deepEqual(lines.at(-1)?.requestId, 'a-1.b_2')
  for (const id of ['a b', 'x'.repeat(129), 'é', '']) {
    const answer = await app.inject({ url, headers: { 'x-request-id': id } })
    assert.match(String(answer.headers['x-request-id']), /^[0-9a-f-]{36}$/)
  }
})

test('the server passes on a valid trace context, logs it, and creates no trace context itself', async (t) => {
  const { app, lines } = await build(t)
  const url = `/orders/${UUID}`
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  const theirs = { traceparent, tracestate: 'a=1,b=2' }
  const traceOf = async (headers: Record<string, string>) =>
    (await app.inject({ url, headers })).json().trace
  assert.deepEqual(await traceOf({ traceparent }), { traceparent })
  assert.deepEqual(await traceOf(theirs), theirs)
  assert.equal(lines.at(-1)?.trace_id, '0af7651916cd43dd8448eb211c80319c')
  assert.deepEqual(await traceOf({ traceparent, tracestate: 'x'.repeat(513) }), { traceparent })
  const wrong = traceparent.replace(/b7ad6b7169203331/, '0'.repeat(16))
  for (const headers of [{}, { traceparent: wrong }, { traceparent: 'x' }, { tracestate: 'a=1' }]) {
    assert.deepEqual(await traceOf(headers as Record<string, string>), {})
    assert.equal(lines.at(-1)?.trace_id, undefined)
  }
})

test('the server works with a plain log, and logs failed requests at info and other requests at debug', async (t) => {
  const lines: [string, object, string][] = []
  const write = (level: string) => (members: object, sentence: string) => {
    lines.push([level, members, sentence])
  }
  const levels = ['debug', 'info', 'warn', 'error']
  const log = Object.fromEntries(levels.map((level) => [level, write(level)]))
  const { app } = await build(t, { log: log as unknown as HttpServerOptions['log'] })
  app.get('/orders/away', async () => {
    throw new Fault('DATABASE_UNAVAILABLE')
  })
  await app.inject({ url: `/orders/${UUID}`, headers: { 'x-request-id': 'r1' } })
  const [level, members, sentence] = lines.at(-1)!
  assert.equal(level, 'debug')
  assert.equal((members as { requestId: string }).requestId, 'r1')
  assert.equal(sentence, 'request completed')
  await app.inject('/orders/away')
  assert.deepEqual([lines.at(-1)![0], lines.at(-1)![2]], ['info', 'request completed'])
})

test('the server limits the rate of each address, except for loopback and probes', async (t) => {
  const { app } = await build(t, { rateLimitPerMinute: 2 })
  const url = `/orders/${UUID}`
  const from = (remoteAddress: string, headers = {}) => ({ url, remoteAddress, headers })
  for (let i = 0; i < 2; i++) assert.equal((await app.inject(from('203.0.113.9'))).statusCode, 200)
  const { problem, headers } = await problemOf(app, from('203.0.113.9'))
  assert.equal(problem.code, 'TOO_MANY_REQUESTS')
  assert.ok(Number(headers['retry-after']) > 0)
  assert.equal((await app.inject(from('203.0.113.10'))).statusCode, 200)
  for (let i = 0; i < 4; i++) assert.equal((await app.inject(from('127.0.0.1'))).statusCode, 200)
  // Behind a proxy on this machine, a request counts for the proxy's client.
  const behind = from('127.0.0.1', { 'x-forwarded-for': '203.0.113.9' })
  assert.equal((await app.inject(behind)).statusCode, 429)
  const probe = { url: '/orders/health', remoteAddress: '203.0.113.9' }
  assert.equal((await app.inject(probe)).statusCode, 200)
})

test('the server trusts X-Forwarded-For from trusted networks only', async (t) => {
  const trustedNetworks = networksOf('10.0.0.0/8')
  const { app } = await build(t, { rateLimitPerMinute: 2, trustedNetworks })
  const statusOf = async (remoteAddress: string, forwarded?: string) => {
    const headers: Record<string, string> = forwarded ? { 'x-forwarded-for': forwarded } : {}
    return (await app.inject({ url: `/orders/${UUID}`, remoteAddress, headers })).statusCode
  }
  for (const status of [200, 200, 429]) {
    const spoofed = `203.0.113.${status === 429 ? 3 : Math.random()}`
    assert.equal(await statusOf('192.168.0.7', spoofed), status)
    assert.equal(await statusOf('10.0.0.7', `10.0.0.1, 203.0.113.9`), status)
  }
  for (let i = 0; i < 4; i++) assert.equal(await statusOf('10.0.0.7'), 200)
  for (const status of [200, 200, 429]) assert.equal(await statusOf('127.0.0.1'), status)
})

test('scrapes and unknown routes count toward the rate limit, probes do not', async (t) => {
  const { app } = await build(t, { rateLimitPerMinute: 2 })
  const statusOf = async (url: string, remoteAddress: string) =>
    (await app.inject({ url, remoteAddress })).statusCode
  for (const status of [200, 200, 429]) {
    assert.equal(await statusOf('/orders/actuator/prometheus', '203.0.113.9'), status)
    assert.equal(await statusOf('/nowhere', '203.0.113.10'), status === 200 ? 404 : 429)
    assert.equal(await statusOf('/orders/actuator/health/liveness', '203.0.113.11'), 200)
  }
})

test('concurrent scrapes share one result, which is reused for a second', async (t) => {
  let now = 1_000_000
  let reads = 0
  const runtime = { ...systemRuntime, now: () => now }
  const telemetry = createTelemetry('order')
  telemetry.gauge('trifold_dead_letters', async () => {
    reads += 1
    return reads
  })
  const { app } = await build(t, { runtime, telemetry })
  const scrape = (headers = {}, remoteAddress = '127.0.0.1') =>
    app.inject({ url: '/orders/actuator/prometheus', headers, remoteAddress })
  await Promise.all([scrape(), scrape(), scrape()])
  await scrape()
  await scrape({ 'cache-control': 'no-cache' }, '203.0.113.9')
  assert.equal(reads, 1)
  now += 1_000
  await scrape()
  assert.equal(reads, 2)
  await scrape({ 'cache-control': 'no-cache' })
  assert.equal(reads, 3)
})

test('the server continues the trace of a trusted caller, and links the trace of any other caller', async (t) => {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  const started: SpanStart[] = []
  const tracer: Tracer = {
    ...noTracing,
    isOn: true,
    begin(start) {
      started.push(start)
      return noTracing.begin(start)
    },
  }
  const { app } = await build(t, { tracer })
  for (const remoteAddress of ['127.0.0.1', '203.0.113.9']) {
    await app.inject({ url: `/orders/${UUID}`, headers: { traceparent }, remoteAddress })
  }
  assert.deepEqual(
    started.map(({ parent, links }) => ({ parent, links })),
    [
      { parent: { traceparent }, links: undefined },
      { parent: {}, links: [{ traceparent }] },
    ],
  )
})

test('isLoopback accepts callers on this machine that are not proxies', () => {
  const from = (remoteAddress: string, headers = {}) =>
    isLoopback({ socket: { remoteAddress }, headers })
  assert.ok(from('127.0.0.1') && from('::1') && from('::ffff:127.0.0.1'))
  assert.ok(!from('10.0.0.1') && !from('::ffff:10.0.0.1') && !from('127.0.0.1.example'))
  assert.ok(!from('127.0.0.1', { 'x-forwarded-for': '127.0.0.1' }))
})

test('liveness checks nothing; readiness shows which dependency is down, and never hangs', async (t) => {
  let isBrokerUp = true
  const { app } = await build(t, {
    readiness: {
      database: async () => {},
      broker: async () => {
        if (!isBrokerUp) throw new Error('the password is wrong')
      },
    },
  })
  const up = { status: 'UP', components: { database: { status: 'UP' }, broker: { status: 'UP' } } }
  for (const path of ['actuator/health', 'actuator/health/readiness']) {
    assert.deepEqual((await app.inject(`/orders/${path}`)).json(), up)
  }
  isBrokerUp = false
  for (const path of ['actuator/health', 'actuator/health/readiness']) {
    const answer = await app.inject(`${PREFIX}/orders/${path}/`)
    assert.equal(answer.statusCode, 503)
    assert.deepEqual(answer.json(), {
      status: 'DOWN',
      components: { database: { status: 'UP' }, broker: { status: 'DOWN' } },
    })
  }
  const ready = async (of: Built['app']) =>
    (await of.inject('/orders/actuator/prometheus')).body.match(/^trifold_ready.*/gm)
  assert.deepEqual(await ready(app), [
    'trifold_ready{dependency="database",service="order"} 1',
    'trifold_ready{dependency="broker",service="order"} 0',
  ])
  assert.deepEqual((await app.inject('/orders/actuator/health/liveness')).json(), { status: 'UP' })
  assert.deepEqual((await app.inject('/orders/health')).json(), { status: 'OK' })
  // All sleeps end at once, so a check that never ends exceeds its time limit at once.
  const runtime = { ...systemRuntime, sleep: async () => {} }
  const hung = await build(t, { runtime, readiness: { database: () => new Promise(() => {}) } })
  assert.equal((await hung.app.inject('/orders/actuator/health')).statusCode, 503)
  assert.deepEqual(await ready(hung.app), [
    'trifold_ready{dependency="database",service="order"} 0',
  ])
})

test('the server responds with 405 and lists the methods if a path has routes only for other methods', async (t) => {
  const { app } = await build(t)
  const cases = [
    ['PUT', '/orders', 'POST'],
    ['GET', '/orders/create', 'POST'],
    ['OPTIONS', `${PREFIX}/orders/create/`, 'POST'],
    ['POST', `/orders/${UUID}?limit=1`, 'GET, HEAD'],
    ['POST', '/orders/health', 'GET, HEAD'],
    ['DELETE', '/orders/actuator/prometheus', 'GET, HEAD'],
    ['POST', '/orders/docs/static/index.html', 'GET, HEAD'],
    ['TRACE', '/orders/openapi.json', 'GET, HEAD'],
    ['QUERY', '/orders/health', 'GET, HEAD'],
  ] as const
  for (const [method, url, allow] of cases) {
    const { problem, headers } = await problemOf(app, { method: method as 'GET', url })
    assert.deepEqual(
      [problem.code, headers.allow],
      ['METHOD_NOT_ALLOWED', allow],
      `${method} ${url}`,
    )
  }
  for (const url of ['/', '/nowhere', `/orders/${UUID}/more`]) {
    const { problem, headers } = await problemOf(app, { method: 'PUT', url })
    assert.deepEqual([problem.code, headers.allow], ['ROUTE_NOT_FOUND', undefined], url)
  }
  assert.equal((await app.inject({ method: 'HEAD', url: '/orders/health' })).statusCode, 200)
})

test('the server counts requests by the pattern of their route', async (t) => {
  const { app } = await build(t)
  await app.inject(`/orders/${UUID}`)
  await app.inject(`${PREFIX}/orders/${UUID}/?limit=3`)
  await app.inject('/nowhere/1')
  const answer = await app.inject('/orders/actuator/prometheus')
  assert.match(String(answer.headers['content-type']), /^text\/plain; version=0\.0\.4/)
  const line = (labels: string) => `trifold_http_requests_total{${labels},service="order"}`
  assert.ok(answer.body.includes(`${line('method="GET",route="/orders/:id",status="200"')} 2`))
  assert.ok(answer.body.includes(`${line('method="GET",route="unmatched",status="404"')} 1`))
  assert.doesNotMatch(answer.body, new RegExp(UUID))
})

test('the server finishes a running request when it closes, and rejects later ones', async (t) => {
  const { app } = await build(t)
  const { promise: finish, resolve: letFinish } = Promise.withResolvers<void>()
  const { promise: started, resolve: start } = Promise.withResolvers<void>()
  app.get('/orders/slow', async () => {
    start()
    await finish
    return { done: true }
  })
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  const agent = new Agent({ keepAlive: true })
  t.after(() => agent.destroy())
  const idle = await read(`${address}/orders/health`, agent)
  assert.equal(idle.headers.connection, 'keep-alive')

  const late = await half(app.server, address, 'GET /orders/health HTTP/1.1\r\nHost: a\r\n')
  const running = read(`${address}/orders/slow`, agent)
  await started
  const closed = app.close()
  late.write('\r\n')
  let rejection = ''
  for await (const chunk of late) rejection += chunk
  assert.match(rejection, /^HTTP\/1\.1 503 /)
  assert.match(rejection, /SERVICE_UNAVAILABLE/)

  letFinish()
  const answer = await running
  assert.equal(answer.status, 200)
  assert.equal(answer.headers.connection, 'close')
  await closed
  await assert.rejects(read(`${address}/orders/health`, agent), { code: 'ECONNREFUSED' })
})

test('the server rejects a body that is too large while it arrives, and closes the connection if the rest does not arrive', async (t) => {
  const { app } = await build(t)
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  const request = send(`${address}/orders?profileId=${UUID}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
  })
  t.after(() => request.destroy())
  request.on('error', () => {}).write(`"${'x'.repeat(4000)}`)
  const [response] = await once(request, 'response')
  assert.equal(response.statusCode, 413)
  await once(request.socket!, 'close', { signal: AbortSignal.timeout(10_000) })
})

test('a body that is too large does not affect other requests on its connection', async (t) => {
  const { app } = await build(t)
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  t.after(() => agent.destroy())
  const request = send(`${address}/orders?profileId=${UUID}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    agent,
  })
  request.end(`"${'x'.repeat(500_000)}"`)
  const [response] = await once(request, 'response')
  assert.equal(response.statusCode, 413)
  response.resume()
  await once(response, 'end')
  const next = get(`${address}${PREFIX}/orders/${UUID}/`, { agent })
  const [answer] = await once(next, 'response')
  answer.resume()
  assert.equal(answer.statusCode, 200)
  assert.ok(next.reusedSocket)
})

test('a client that sends all of a body that is too large before reading gets the response', async (t) => {
  const { app } = await build(t)
  const { port } = new URL(await app.listen({ port: 0, host: '127.0.0.1' }))
  const socket = connect({ port: Number(port), host: '127.0.0.1' })
  t.after(() => socket.destroy())
  const pieces = Array.from({ length: 50 }, () => 'x'.repeat(10_000))
  const head = [`POST /orders?profileId=${UUID} HTTP/1.1`, 'host: here']
  head.push('content-type: application/json', 'content-length: 500000', '', '')
  const write = promisify(socket.write.bind(socket) as (text: string, done: () => void) => void)
  for (const piece of [head.join('\r\n'), ...pieces]) {
    await write(piece)
    for (let turns = 0; turns < 5; turns += 1) await setImmediate()
  }
  const [answer] = await once(socket, 'data')
  assert.match(String(answer), /^HTTP\/1\.1 413 .*BODY_TOO_LARGE/s)
})

test('the server serves requests of another server, without listening itself', async (t) => {
  const { app } = await build(t)
  await app.ready()
  const server = createServer((request, response) => app.routing(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const agent = new Agent()
  t.after(() => agent.destroy())
  const { port } = server.address() as AddressInfo
  const answer = await read(`http://127.0.0.1:${port}${PREFIX}/orders/${UUID}/`, agent)
  assert.equal(JSON.parse(answer.body).id, UUID)
})

/** A connection on which the server has read this part of a request. */
async function half(server: Server, address: string, text: string) {
  const accepted = once(server, 'connection')
  const socket = connect({ port: Number(new URL(address).port), host: '127.0.0.1' })
  const [serverSide] = (await accepted) as [Socket]
  socket.write(text)
  while (serverSide.bytesRead < text.length) await setImmediate()
  return socket
}

async function read(url: string, agent: Agent) {
  const [response] = await once(get(url, { agent }), 'response')
  let body = ''
  for await (const chunk of response) body += chunk
  return { status: response.statusCode, headers: response.headers, body }
}
