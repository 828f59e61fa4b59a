import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { until } from '../async/until.ts'
import { listenOn } from './listening.ts'

async function serve(t: TestContext) {
  const server = createServer((_request, response) => void response.end('ok'))
  const listening = await listenOn(server, '127.0.0.1', 0)
  t.after(async () => {
    server.closeAllConnections()
    await Promise.all([listening.close(), new Promise((resolve) => server.close(resolve))])
  })
  return { server, port: listening.port }
}

test('the server responds on whichever socket a connection arrives', async (t) => {
  const { port } = await serve(t)
  const answers = Array.from({ length: 100 }, async () => {
    const answer = await fetch(`http://127.0.0.1:${port}`, { headers: { connection: 'close' } })
    return await answer.text()
  })
  assert.deepEqual([...new Set(await Promise.all(answers))], ['ok'])
})

test('a port in use is rejected, although the sockets of one server share a port', async (t) => {
  const { port } = await serve(t)
  await assert.rejects(listenOn(createServer(), '127.0.0.1', port), { code: 'EADDRINUSE' })
})

test('the server accepts several connections in a turn of the event loop', {
  skip: process.platform === 'linux' ? false : 'only Linux shares out connections to sockets',
}, async (t) => {
  const { server, port } = await serve(t)
  let accepted = 0
  server.on('connection', () => {
    accepted += 1
  })
  const sockets = Array.from({ length: 200 }, () => connect(port, '127.0.0.1'))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
  })
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  let turns = 0
  while (accepted < sockets.length) {
    await setImmediate()
    turns += 1
  }
  assert.ok(turns < sockets.length / 2, `${turns} turns for ${accepted} connections`)
})

test('the HTTP server closes the connections of all sockets', async (t) => {
  const { server, port } = await serve(t)
  const sockets = Array.from({ length: 50 }, () => connect(port, '127.0.0.1').resume())
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  const areClosed = async () => {
    // At this point, some connections may not have been accepted yet.
    server.closeAllConnections()
    return sockets.every(({ destroyed }) => destroyed)
  }
  await until(areClosed, { limitMs: 10_000 })
})
