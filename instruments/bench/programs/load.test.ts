import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { openConnections, parseResponse } from './connections.ts'
import { applyLoad, type Load } from './load.ts'

/** Runs `work` against a server that responds with the statuses that `answer` returns. */
async function withServer<T>(
  answer: (nth: number) => number | 'cut',
  work: (load: Load, received: string[]) => Promise<T>,
): Promise<T> {
  const received: string[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk
    })
    request.on('end', () => {
      received.push(
        `${request.method} ${request.url} ${request.headers['x-interaction-style']} ${body}`,
      )
      const status = answer(received.length)
      if (status === 'cut') return request.socket.destroy()
      const text = '"an id"'
      response.writeHead(status, { 'content-length': text.length })
      // In two chunks, as it can arrive over a network.
      response.write(text.slice(0, 3))
      response.end(text.slice(3))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const load = { url, style: 'hybrid', connections: 3, accounts: ['a', 'b'], seconds: 30 }
  try {
    return await work(load, received)
  } finally {
    server.close()
  }
}

test('places the given number of orders for the accounts in turn, and counts the accepted ones', async () => {
  await withServer(
    (nth) => (nth === 4 ? 503 : 201),
    async (load, received) => {
      const result = await applyLoad({ ...load, orders: 7 })
      assert.equal(received.length, 7)
      assert.equal(received[0], 'POST /orders?profileId=a hybrid {"productQuantity":1}')
      assert.equal(received.filter((line) => line.includes('profileId=b')).length, 3)
      assert.equal(result.accepted, 6)
      assert.deepEqual(result.rejected, { 503: 1 })
      assert.equal(result.latenciesMs.length, 7)
    },
  )
})

test('ends after the given number of seconds', async () => {
  await withServer(
    () => 201,
    async (load) => {
      const { accepted, seconds } = await applyLoad({ ...load, seconds: 0.2 })
      assert.ok(accepted > 0)
      assert.ok(seconds >= 0.2)
    },
  )
})

test('fails if the server closes a connection with a request in flight', async () => {
  await withServer(
    (nth) => (nth === 2 ? 'cut' : 201),
    async (load) => {
      await assert.rejects(applyLoad({ ...load, connections: 1 }), /closed a connection|ECONNRESET/)
    },
  )
})

test('a response counts once it is complete', () => {
  const response = 'HTTP/1.1 402 Payment Required\r\nContent-Length: 4\r\nx: y\r\n\r\nbody'
  assert.deepEqual(parseResponse(Buffer.from(response)), { status: 402, body: 'body' })
  assert.equal(parseResponse(Buffer.from(response.slice(0, -1))), undefined)
  assert.equal(parseResponse(Buffer.from(response.slice(0, 20))), undefined)
  const endless = 'HTTP/1.1 200 OK\r\n\r\n'
  assert.throws(() => parseResponse(Buffer.from(endless)), /without a length/)
})

test('an idle connection is used again, and a closed connection is replaced', async () => {
  await withServer(
    (nth) => (nth === 3 ? 'cut' : 201),
    async ({ url }) => {
      const { send, close } = openConnections(url)
      const order = () => send('POST /orders', [], '{"productQuantity":1}')
      assert.deepEqual(await order(), { status: 201, body: '"an id"' })
      assert.equal((await order()).status, 201)
      await assert.rejects(order(), /closed a connection|ECONNRESET/)
      assert.equal((await order()).status, 201)
      close()
    },
  )
})
