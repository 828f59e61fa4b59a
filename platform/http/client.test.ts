import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { createHttpClient, HttpUnreachable } from './client.ts'

async function serve(t: TestContext, listener: RequestListener) {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = createHttpClient()
  t.after(async () => {
    server.closeAllConnections()
    server.close()
    await client.close()
  })
  const { port } = server.address() as AddressInfo
  return { server, call: client.call, url: `http://127.0.0.1:${port}` }
}

test('the HTTP client sends method, headers and body, and resolves with any response', async (t) => {
  const { call, url } = await serve(t, async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const seen = [
      request.method,
      request.url,
      request.headers['x-one'],
      String(Buffer.concat(chunks)),
    ]
    response.writeHead(402).end(JSON.stringify(seen))
  })
  const headers = { 'x-one': '1' }
  const answer = await call(
    { target: 'billing', method: 'POST', url: `${url}/a?b=1`, headers, body: 'héllo' },
    2000,
  )
  assert.equal(answer.status, 402)
  assert.deepEqual(JSON.parse(answer.body), ['POST', '/a?b=1', '1', 'héllo'])
})

test('the HTTP client sends how long the caller will wait', async (t) => {
  const { call, url } = await serve(t, (request, response) => {
    response.end(request.headers['x-request-timeout-ms'])
  })
  const answer = await call({ target: 'billing', method: 'GET', url, headers: {} }, 1_234.5)
  assert.equal(answer.body, '1235')
})

test('the HTTP client reuses its connections', async (t) => {
  let connections = 0
  const { server, call, url } = await serve(t, (_request, response) => response.end('ok'))
  server.on('connection', () => connections++)
  for (let i = 0; i < 20; i++)
    await call({ target: 'billing', method: 'GET', url, headers: {} }, 2000)
  // A connection becomes free shortly after its response, so a second connection may be opened before that.
  assert.ok(connections <= 2, `${connections} connections for 20 calls`)
})

test('the HTTP client rejects if no server listens, and names the call without its query', async (t) => {
  const { server, call, url } = await serve(t, () => {})
  server.close()
  await once(server, 'close')
  await assert.rejects(
    call({ target: 'billing', method: 'DELETE', url: `${url}/a?p=1`, headers: {} }, 2000),
    (error) => {
      assert.ok(error instanceof HttpUnreachable)
      assert.match(error.message, /^DELETE http:\/\/127\.0\.0\.1:\d+\/a: .*ECONNREFUSED/)
      return true
    },
  )
})

test('the timeout of a call ends the wait for a response that never arrives, and for a body that never ends', async (t) => {
  const { call, url } = await serve(t, (request, response) => {
    if (request.url === '/body') response.writeHead(200).write('half')
  })
  // Without the timeout, neither call would ever end.
  for (const path of ['/head', '/body']) {
    const answer = call({ target: 'billing', method: 'GET', url: url + path, headers: {} }, 100)
    await assert.rejects(answer, HttpUnreachable)
  }
})

test('the HTTP client rejects a response that is incomplete or exceeds the size limit', async (t) => {
  const { call, url } = await serve(t, (request, response) => {
    if (request.url === '/large') return response.end('x'.repeat(1_048_577))
    response.writeHead(200, { 'content-length': 10 }).write('x', () => response.destroy())
  })
  for (const path of ['/large', '/broken']) {
    await assert.rejects(
      call({ target: 'billing', method: 'GET', url: url + path, headers: {} }, 2000),
      HttpUnreachable,
    )
  }
})
