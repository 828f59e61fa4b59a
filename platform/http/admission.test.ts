import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import type { FastifyRequest } from 'fastify'
import { systemRuntime } from '../async/runtime.ts'
import { until } from '../async/until.ts'
import { openFrontDoor } from '../front-door/front-door.ts'
import { createLog, createTelemetry } from '../telemetry/telemetry.ts'
import { createHttpServer } from './server.ts'

const BODY = '{}'

/** A service behind a front door. The test decides when its orders get their responses, and controls its clock. */
async function serve(t: TestContext) {
  let aheadMs = 0
  const held: (() => void)[] = []
  const started: FastifyRequest[] = []
  const telemetry = createTelemetry('order')
  const app = await createHttpServer({
    service: 'orders',
    title: 'Orders',
    basePath: '/base',
    bodyLimitBytes: 2_048,
    rateLimitPerMinute: 0,
    readiness: {},
    telemetry,
    log: createLog('silent', 'order'),
    runtime: { ...systemRuntime, monotonic: () => performance.now() + aheadMs },
  })
  app.addHook('onRoute', (route) => {
    route.config = { access: 'public', ...route.config }
  })
  app.post('/orders', async (request) => {
    started.push(request)
    await new Promise<void>((resolve) => held.push(resolve))
    return {}
  })
  app.get('/orders', async () => [])
  app.get('/orders/slow', () => new Promise<void>((resolve) => held.push(resolve)))
  await app.ready()
  const door = await openFrontDoor({
    host: '127.0.0.1',
    port: 0,
    requestTimeoutMs: 30_000,
    maxConnections: 1_000,
    allowedHosts: 'any',
    handle: (services, request, response) => services.pass('order', request, response),
  })
  door.mount('order', app)
  t.after(async () => {
    for (const release of held) release()
    await door.close()
    await app.close()
  })
  const order = (headers: Record<string, string> = {}) =>
    fetch(`${door.url}/orders`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: BODY,
      signal: AbortSignal.timeout(30_000),
    })
  return {
    url: door.url,
    held,
    started,
    telemetry,
    order,
    pass(ms: number) {
      aheadMs += ms
    },
    /** Sends orders whose handlers do not respond yet. */
    async hold(count: number, headers: Record<string, string> = {}) {
      const before = held.length
      const answers = Array.from({ length: count }, () => order(headers))
      await until(async () => held.length === before + count, { limitMs: 10_000 })
      return answers
    },
  }
}

test('a service that falls behind rejects new orders with a problem and Retry-After', async (t) => {
  const { hold, pass, order, telemetry } = await serve(t)
  await hold(64)
  pass(2_000)
  const answer = await order({ 'x-request-id': 'mine' })
  assert.equal(answer.status, 429)
  assert.equal(answer.headers.get('retry-after'), '1')
  assert.equal(answer.headers.get('x-request-id'), 'mine')
  assert.equal(answer.headers.get('content-type'), 'application/problem+json')
  const { code, retryable, instance } = (await answer.json()) as Record<string, unknown>
  assert.deepEqual(
    { code, retryable, instance },
    {
      code: 'TOO_MANY_REQUESTS',
      retryable: true,
      instance: 'mine',
    },
  )
  assert.match((await telemetry.scrape()).body, /^trifold_requests_refused_total\{.*\} 1$/m)
})

test('rejecting orders does not affect probes, calls between services, reads and other styles', async (t) => {
  const { hold, pass, order, url } = await serve(t)
  await hold(64, { 'x-interaction-style': 'http' })
  pass(2_000)
  assert.equal((await order({ 'x-interaction-style': 'http' })).status, 429)
  for (const path of ['/orders/health', '/base/orders/actuator/prometheus?x=1', '/orders']) {
    assert.equal((await fetch(`${url}${path}`)).status, 200, path)
  }
  await hold(1, { 'x-interaction-style': 'http', 'x-request-timeout-ms': '60000' })
  await hold(1, { 'x-interaction-style': 'events' })
})

test('probes and scrapes get a response while reads are rejected', async (t) => {
  const { pass, held, url } = await serve(t)
  for (let n = 0; n < 64; n += 1) void fetch(`${url}/orders/slow`).catch(() => undefined)
  await until(async () => held.length === 64, { limitMs: 10_000 })
  pass(2_000)
  assert.equal((await fetch(`${url}/orders`)).status, 429)
  for (const path of ['/orders/health', '/base/orders/actuator/prometheus?x=1']) {
    assert.equal((await fetch(`${url}${path}`)).status, 200, path)
  }
})

test('orders whose clients hang up make room for others, even if their handlers still run', async (t) => {
  const { hold, pass, order, started, held, url } = await serve(t)
  const { port, hostname } = new URL(url)
  const sockets = Array.from({ length: 64 }, () => connect(Number(port), hostname))
  for (const socket of sockets) {
    socket.write(
      'POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}',
    )
  }
  await until(async () => held.length === 64, { limitMs: 10_000 })
  pass(2_000)
  assert.equal((await order()).status, 429)
  for (const socket of sockets) socket.destroy()
  await until(async () => started.every(({ raw }) => raw.destroyed), { limitMs: 10_000 })
  await hold(1)
})

test('a service that has caught up admits orders again', async (t) => {
  const { hold, pass, order, held } = await serve(t)
  const late = await hold(64)
  pass(2_000)
  assert.equal((await order()).status, 429)
  for (const release of held.splice(0)) release()
  for (const answer of late) assert.equal((await answer).status, 200)
  await hold(1)
})

test('bodies that arrive slowly do not take up room that other requests need', async (t) => {
  const { hold, pass, url } = await serve(t)
  const { port, hostname } = new URL(url)
  const sockets = Array.from({ length: 100 }, () => connect(Number(port), hostname))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
  })
  for (const socket of sockets) {
    // At the end of the test, the front door closes before these sockets, and they may report an error.
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    socket.write(
      'POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{',
    )
  }
  await fetch(`${url}/orders/health`)
  pass(2_000)
  await hold(1)
})

test('a request expires when its client hangs up', async (t) => {
  const { started, url } = await serve(t)
  const { port, hostname } = new URL(url)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect')
  socket.write(
    'POST /orders HTTP/1.1\r\nhost: x\r\nx-request-timeout-ms: 600000\r\n' +
      'content-type: application/json\r\ncontent-length: 2\r\n\r\n{}',
  )
  await until(async () => started.length === 1, { limitMs: 10_000 })
  assert.equal(started[0]?.isExpired(), false)
  socket.destroy()
  await until(async () => started[0]!.isExpired(), { limitMs: 10_000 })
})

test('a request expires at the end of the caller’s timeout, or after a second in the queue', async (t) => {
  const { hold, started, pass } = await serve(t)
  await hold(1, { 'x-request-timeout-ms': '5000' })
  await hold(1)
  const expired = () => started.map((request) => request.isExpired())
  assert.deepEqual(expired(), [false, false])
  pass(1_100)
  assert.deepEqual(expired(), [false, true])
  pass(4_000)
  assert.deepEqual(expired(), [true, true])
})
