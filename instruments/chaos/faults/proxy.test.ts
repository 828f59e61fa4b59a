import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { after, beforeEach, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../../platform/async/until.ts'
import { startProxy, type Toxic } from './proxy.ts'

/** A server that records and echoes all text that it receives. */
const heard: string[] = []
const server = createServer((socket) => {
  socket.setNoDelay(true)
  socket.on('error', () => undefined)
  socket.on('data', (bytes) => {
    heard.push(bytes.toString())
    socket.write(bytes)
  })
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const proxy = await startProxy((server.address() as { port: number }).port)
after(async () => {
  await proxy.close()
  server.close()
})
beforeEach(() => {
  proxy.heal()
  heard.length = 0
})

const LIMIT_MS = 5_000
/** No bytes may arrive for this many turns of the event loop, of at least 10 ms each. */
const SILENT_TURNS = 15
/** Timers may be early by less than a millisecond. */
const EARLY_MS = 2

interface Caller {
  readonly socket: Socket
  readonly text: () => string
  readonly end: () => 'open' | 'ended' | 'reset'
  says(text: string): void
  hears(text: string): Promise<void>
}

async function call(): Promise<Caller> {
  const socket = connect(proxy.port, '127.0.0.1')
  socket.setNoDelay(true)
  let text = ''
  let end: 'open' | 'ended' | 'reset' = 'open'
  socket.on('data', (bytes) => {
    text += bytes.toString()
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ECONNRESET') end = 'reset'
  })
  socket.on('close', () => {
    if (end === 'open') end = 'ended'
  })
  await once(socket, 'connect')
  return {
    socket,
    text: () => text,
    end: () => end,
    says: (words) => void socket.write(words),
    hears: async (words) => void (await until(async () => text === words, { limitMs: LIMIT_MS })),
  }
}

const ends = ({ end }: Caller, how: 'ended' | 'reset') =>
  until(async () => end() === how, { limitMs: LIMIT_MS })

/**
 * Waits for all bytes in flight to arrive. It sleeps many times for a short time, because after one long
 * sleep on a busy machine, timers can run before any socket is read.
 */
async function silence(): Promise<void> {
  for (let turn = 0; turn < SILENT_TURNS; turn += 1) await sleep(10)
}

async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now()
  await work()
  return performance.now() - startedMs
}

async function connected(): Promise<Caller> {
  const caller = await call()
  caller.says('hello')
  await caller.hears('hello')
  heard.length = 0
  return caller
}

describe('a healthy proxy', () => {
  test('forwards bytes and the end of the stream in both directions', async () => {
    const caller = await connected()
    caller.says('again')
    await caller.hears('helloagain')
    caller.socket.end()
    await ends(caller, 'ended')
    await until(async () => proxy.connections === 0, { limitMs: LIMIT_MS })
  })

  test('forwards more bytes than it can buffer', async () => {
    const caller = await call()
    const size = 8 << 20
    let count = 0
    caller.socket.on('data', (bytes) => {
      count += bytes.length
    })
    caller.socket.write(Buffer.alloc(size, 'x'))
    await until(async () => count === size, { limitMs: LIMIT_MS })
    caller.socket.destroy()
  })

  test('resets the connection if there is no server', async () => {
    const closed = createServer().listen(0, '127.0.0.1')
    await once(closed, 'listening')
    const { port } = closed.address() as { port: number }
    await new Promise((resolve) => closed.close(resolve))
    const nowhere = await startProxy(port)
    const socket = connect(nowhere.port, '127.0.0.1')
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException]
    assert.equal(error.code, 'ECONNRESET')
    await nowhere.close()
  })
})

describe('latency', () => {
  test('delays each direction, and keeps the order', async () => {
    const caller = await connected()
    proxy.poison({ kind: 'latency', delayMs: 60, jitterMs: 20 })
    const tookMs = await timeOf(async () => {
      for (const letter of 'abc') {
        caller.says(letter)
        await sleep(1)
      }
      await caller.hears('helloabc')
    })
    assert.ok(tookMs >= 120 - EARLY_MS, `it took ${tookMs} ms`)
    caller.socket.destroy()
  })

  test('no longer delays bytes in flight once the fault is over', async () => {
    const caller = await connected()
    proxy.poison({ kind: 'latency', delayMs: 60_000, jitterMs: 0 })
    caller.says('late')
    await silence()
    assert.deepEqual(heard, [])
    proxy.heal()
    await caller.hears('hellolate')
    caller.socket.destroy()
  })
})

test('slow limits the bytes per second in each direction', async () => {
  const caller = await connected()
  proxy.poison({ kind: 'slow', bytesPerSecond: 10_000 })
  const tookMs = await timeOf(async () => {
    caller.says('x'.repeat(1_000))
    await caller.hears(`hello${'x'.repeat(1_000)}`)
  })
  // A tenth of a second in each direction.
  assert.ok(tookMs >= 200 - EARLY_MS, `it took ${tookMs} ms`)
  caller.socket.destroy()
})

describe('stall', () => {
  test('holds all bytes, and delivers them when the fault is over', async () => {
    const caller = await connected()
    proxy.poison({ kind: 'stall' })
    caller.says('held')
    await silence()
    assert.deepEqual(heard, [])
    assert.equal(caller.end(), 'open')
    proxy.heal()
    await caller.hears('helloheld')
    caller.socket.destroy()
  })

  test('delivers the bytes that a client sent before it gave up', async () => {
    const caller = await connected()
    proxy.poison({ kind: 'stall' })
    caller.says('forgotten')
    await silence()
    caller.socket.destroy()
    await silence()
    assert.deepEqual(heard, [])
    proxy.heal()
    await until(async () => heard.join('') === 'forgotten', { limitMs: LIMIT_MS })
  })
})

test('half-open keeps unresponsive connections open forever; later connections work', async () => {
  const before = await connected()
  proxy.poison({ kind: 'half-open' })
  const during = await call()
  before.says('lost')
  during.says('lost')
  await silence()
  proxy.heal()
  await silence()
  assert.deepEqual(heard, [])
  assert.deepEqual([before.end(), during.end()], ['open', 'open'])
  const afterwards = await connected()
  for (const { socket } of [before, during, afterwards]) socket.destroy()
  await until(async () => proxy.connections === 0, { limitMs: LIMIT_MS })
})

test('cut closes existing and new connections until it is healed', async () => {
  const before = await connected()
  proxy.poison({ kind: 'cut' })
  await ends(before, 'ended')
  const during = await call()
  await ends(during, 'ended')
  proxy.heal()
  const afterwards = await connected()
  afterwards.socket.destroy()
})

test('reset loses the response and resets the connection, although the server got the request', async () => {
  const caller = await connected()
  proxy.poison({ kind: 'reset' })
  await silence()
  assert.equal(caller.end(), 'open')
  caller.says('done')
  await ends(caller, 'reset')
  assert.deepEqual(heard, ['done'])
  assert.equal(caller.text(), 'hello')
})

test('a share below 1 affects only that part of the connections', async () => {
  const callers = await Promise.all(Array.from({ length: 8 }, connected))
  const toxic: Toxic = { kind: 'cut' }
  proxy.poison(toxic, 0.25)
  await until(async () => callers.filter(({ end }) => end() === 'ended').length === 2, {
    limitMs: LIMIT_MS,
  })
  await silence()
  assert.equal(callers.filter(({ end }) => end() === 'open').length, 6)
  for (const { socket } of callers) socket.destroy()
})
