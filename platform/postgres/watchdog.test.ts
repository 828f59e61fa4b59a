import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { until } from '../async/until.ts'
import { openPostgres, type PostgresOptions } from './postgres.ts'

const url = process.env.TEST_DATABASE_URL
const name = url ? 'PostgreSQL' : 'PostgreSQL (skipped: TEST_DATABASE_URL names no server)'

describe(`${name}, when it is unresponsive`, { skip: !url }, () => {
  const unavailable = { name: 'DatabaseError', kind: 'unavailable' }
  const open = async (t: TestContext, options: Partial<PostgresOptions> = {}) => {
    const database = await openPostgres({ url: url!, ...options })
    t.after(() => database.close())
    return database
  }

  test('requests fail within seconds once the server is unresponsive, and succeed once it responds again', async (t) => {
    const line = await breakableLine(t, new URL(url!))
    const reports: Error[] = []
    const options = { maxConnections: 2, onPoolError: (error: Error) => reports.push(error) }
    const database = await open(t, { ...options, url: line.url })
    await database.query('select 1')
    line.freeze()
    const unresponsive = { ...unavailable, message: 'PostgreSQL does not respond' }
    const [onTheLine, ...connecting] = [1, 2, 3].map(() => database.query('select 1'))
    const rejections = connecting.map((answer) => assert.rejects(answer, unavailable))
    // The probe ended the wait, because the time that a statement may take is much longer.
    await Promise.all([assert.rejects(onTheLine!, unresponsive), ...rejections])
    // The statement is rejected at once: if it waited, it would still be pending after a turn of the event
    // loop.
    const rejected = assert.rejects(database.query('select 1'), unresponsive).then(() => 'rejected')
    assert.equal(await Promise.race([rejected, setImmediate('pending')]), 'rejected')
    assert.equal(reports.length, 1)
    line.restore()
    await until(async () => (await database.query('select 1')).length === 1, { limitMs: 60_000 })
  })

  test('a connection without an answer is given up even if the server answers on others', async (t) => {
    const line = await breakableLine(t, new URL(url!))
    const database = await open(t, { url: line.url, maxConnections: 1, statementTimeoutMs: 500 })
    await database.query('select 1')
    line.pauseOpen()
    const lost = { ...unavailable, message: 'PostgreSQL did not respond in time' }
    await assert.rejects(
      database.transaction((tx) => tx.query('select 1')),
      lost,
    )
    assert.deepEqual(await database.query('select 1 as one'), [{ one: 1 }])
  })

  test('a server that is slow with one statement is not considered unresponsive', async (t) => {
    const reports: Error[] = []
    const database = await open(t, { onPoolError: (error) => reports.push(error) })
    await database.query('select pg_sleep(6)')
    assert.deepEqual(reports, [])
  })
})

/** A proxy in front of the server that can be frozen. It then accepts connections but passes nothing on. */
async function breakableLine(t: TestContext, server: URL) {
  const ends = new Set<Socket>()
  let isFrozen = false
  const listener = createServer((near) => {
    const far = connect(Number(server.port || 5432), server.hostname)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      ends.add(from.on('data', (chunk) => to.write(chunk)))
      from.on('error', () => undefined)
      from.on('close', () => to.destroy())
      if (isFrozen) from.pause()
    }
  }).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  t.after(() => {
    listener.close()
    for (const end of ends) end.destroy()
  })
  function pauseOpen() {
    for (const end of ends) end.pause()
  }
  const url = new URL(server)
  url.host = `127.0.0.1:${(listener.address() as AddressInfo).port}`
  return {
    url: url.href,
    freeze() {
      isFrozen = true
      pauseOpen()
    },
    /** From this call on, nothing is passed on over the existing connections. */
    pauseOpen,
    restore() {
      isFrozen = false
      for (const end of ends) end.resume()
    },
  }
}
