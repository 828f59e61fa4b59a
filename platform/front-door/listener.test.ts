import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { until } from '../async/until.ts'
import { createHttpListener } from './listener.ts'

const GET = 'GET / HTTP/1.1\r\nhost: here\r\n\r\n'
const MEBIBYTE = 1_048_576
const SOON = { limitMs: 8_000 }

interface Limits {
  readonly requestTimeoutMs?: number
  readonly maxConnections?: number
}

async function listen(
  t: TestContext,
  onRequest: (request: IncomingMessage, response: ServerResponse) => void,
  { requestTimeoutMs = 30_000, maxConnections = 100 }: Limits = {},
) {
  let done = 0
  const listener = createHttpListener({
    requestTimeoutMs,
    maxConnections,
    onRequest,
    onDone: () => {
      done += 1
    },
  })
  const { server } = listener
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const clients: Socket[] = []
  t.after(async () => {
    for (const client of clients) client.destroy()
    server.closeAllConnections()
    if (server.listening) await listener.close()
  })
  return {
    listener,
    done: () => done,
    /** A client that never closes its side of the connection. */
    async client(text = '') {
      const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
      clients.push(client)
      client.on('error', () => undefined)
      await once(client, 'connect')
      client.write(text)
      return client
    },
    connections: () =>
      new Promise<number>((resolve, reject) => {
        server.getConnections((error, count) => (error ? reject(error) : resolve(count)))
      }),
  }
}

/** Everything that arrives until the server ends its side of the connection. */
async function textOf(client: Socket): Promise<string> {
  let text = ''
  for await (const chunk of client) text += chunk
  return text
}

const never = () => undefined

test('the listener closes connections that send nothing, half a header, half a body or garbage', async (t) => {
  const readBody = (request: IncomingMessage) => void request.resume()
  const { client, connections } = await listen(t, readBody, { requestTimeoutMs: 300 })
  const kept = await Promise.all(
    [
      '',
      'GET / HTTP/1.1\r\nhost: he',
      'POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 10\r\n\r\n12345',
      'no HTTP\r\n\r\n',
    ].map(client),
  )
  await until(async () => (await connections()) === 0, SOON)
  for (const one of kept) assert.equal(one.writable, true)
})

test('the listener sends a problem to a client that was too slow', async (t) => {
  const { client } = await listen(t, never, { requestTimeoutMs: 300 })
  const text = await textOf(await client('POST / HTTP/1.1\r\nhost: here\r\ncontent-le'))
  assert.match(text, /^HTTP\/1\.1 408 /)
  assert.match(text, /"code":"REQUEST_TIMEOUT"/)
})

test('the listener sends the responses in flight before the response to a client error', async (t) => {
  const { promise: started, resolve: start } = Promise.withResolvers<ServerResponse>()
  const { client } = await listen(t, (_request, response) => start(response))
  const socket = await client(GET)
  const response = await started
  response.write('half an answer')
  await once(socket, 'data')
  socket.write('no HTTP\r\n\r\n')
  assert.doesNotMatch(await textOf(socket).catch(String), /400/)
})

test('the listener disconnects a client that does not read its response', async (t) => {
  const answer = (_request: IncomingMessage, response: ServerResponse) =>
    void response.end('x'.repeat(20 * MEBIBYTE))
  const { client, connections, done } = await listen(t, answer, { requestTimeoutMs: 500 })
  await client(GET.repeat(3))
  await until(async () => (await connections()) === 0 && done() === 3, SOON)
})

test('the listener keeps a limited amount of unread responses in memory', async (t) => {
  const answer = (_request: IncomingMessage, response: ServerResponse) =>
    void response.end('x'.repeat(40 * MEBIBYTE))
  const { client, connections } = await listen(t, answer)
  await client(GET)
  await client(GET)
  await until(async () => (await connections()) === 1, SOON)
})

test('clients that stop reading or sending delay draining only by seconds', async (t) => {
  const answer = (request: IncomingMessage, response: ServerResponse) =>
    request.method === 'GET' ? void response.end('x'.repeat(20 * MEBIBYTE)) : undefined
  const { client, listener, connections, done } = await listen(t, answer)
  await client(GET.repeat(3))
  await client('POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 10\r\n\r\n12345')
  await until(async () => (await connections()) === 2, SOON)
  listener.drain()
  await until(() => done() === 4, SOON)
  await listener.close()
})

test('a request that takes too long gets 503', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const now = t.mock.method(performance, 'now')
  const { promise: started, resolve: start } = Promise.withResolvers<void>()
  const { client } = await listen(t, () => start())
  const socket = await client(GET)
  await started
  now.mock.mockImplementation(() => Number.MAX_SAFE_INTEGER)
  t.mock.timers.tick(1_000)
  const [answer] = await once(socket, 'data')
  assert.match(String(answer), /^HTTP\/1\.1 503 .*SERVICE_UNAVAILABLE/s)
})

test('the listener rejects too many requests in flight on one connection', async (t) => {
  const waiting: ServerResponse[] = []
  const { client } = await listen(t, (_request, response) => void waiting.push(response))
  const socket = await client(GET.repeat(40))
  await until(() => waiting.length === 32, SOON)
  for (const response of waiting) response.end('ok')
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
  })
  const count = (status: number) => text.split(`HTTP/1.1 ${status} `).length - 1
  await until(() => count(200) + count(429) === 40, SOON)
  assert.deepEqual([count(200), count(429)], [32, 8])
  assert.equal(waiting.length, 32)
})

test('the listener rejects connections beyond the limit with 429, and closes idle connections to make room', async (t) => {
  const answer = (_request: IncomingMessage, response: ServerResponse) => void response.end('ok')
  const { client, connections } = await listen(t, answer, { maxConnections: 2 })
  for (const idle of [await client(GET), await client(GET)]) await once(idle, 'data')
  const text = await textOf(await client(GET))
  assert.match(text, /^HTTP\/1\.1 429 .*retry-after: 1.*TOO_MANY_REQUESTS/s)
  await until(async () => (await connections()) === 0, SOON)
  const [answered] = await once(await client(GET), 'data')
  assert.match(String(answered), /^HTTP\/1\.1 200 /)
})
