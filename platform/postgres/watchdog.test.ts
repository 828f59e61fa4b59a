import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { until } from '../async/until.ts'
import { openPostgres, type PostgresOptions } from './postgres.ts'

const url = process.env.TEST_DATABASE_URL
const name = url ? 'PostgreSQL' : 'PostgreSQL (skipped: TEST_DATABASE_URL names no server)'

describe(`${name} that says nothing`, { skip: !url }, () => {
  const unavailable = { name: 'DatabaseError', kind: 'unavailable' }
  const open = async (t: TestContext, options: Partial<PostgresOptions> = {}) => {
    const database = await openPostgres({ url: url!, ...options })
    t.after(() => database.close())
    return database
  }

  test('who waits for a server that falls silent is told soon, and served as soon as it is back', async (t) => {
    const line = await breakableLine(t, new URL(url!))
    const silences: Error[] = []
    const options = { maxConnections: 2, onPoolError: (error: Error) => silences.push(error) }
    const database = await open(t, { ...options, url: line.url })
    await database.query('select 1')
    line.silence()
    const silent = { ...unavailable, message: 'PostgreSQL does not answer' }
    const [onTheLine, ...connecting] = [1, 2, 3].map(() => database.query('select 1'))
    const refusals = connecting.map((answer) => assert.rejects(answer, unavailable))
    // The probe gave it up; the time that a statement may take is much longer.
    await Promise.all([assert.rejects(onTheLine!, silent), ...refusals])
    // Refused on the spot: a statement that had to wait would still be pending after a turn of the event loop.
    const refused = assert.rejects(database.query('select 1'), silent).then(() => 'refused')
    assert.equal(await Promise.race([refused, setImmediate('pending')]), 'refused')
    assert.equal(silences.length, 1)
    line.restore()
    await until(async () => (await database.query('select 1')).length === 1, { limitMs: 60_000 })
  })

  test('a connection on which no answer comes is given up, though the server answers on others', async (t) => {
    const line = await breakableLine(t, new URL(url!))
    const database = await open(t, { url: line.url, maxConnections: 1, statementTimeoutMs: 50 })
    await database.query('select 1')
    line.pauseOpen()
    const lost = { ...unavailable, message: 'PostgreSQL did not answer in time' }
    await assert.rejects(
      database.transaction((tx) => tx.query('select 1')),
      lost,
    )
    assert.deepEqual(await database.query('select 1 as one'), [{ one: 1 }])
  })

  test('a server that is slow with one statement is not taken for silent', async (t) => {
    const silences: Error[] = []
    const database = await open(t, { onPoolError: (error) => silences.push(error) })
    await database.query('select pg_sleep(6)')
    assert.deepEqual(silences, [])
  })
})

/** A way to the server that can fall silent: connections are taken, and nothing comes through. */
async function breakableLine(t: TestContext, server: URL) {
  const ends = new Set<Socket>()
  let isSilent = false
  const listener = createServer((near) => {
    const far = connect(Number(server.port || 5432), server.hostname)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      ends.add(from.on('data', (chunk) => to.write(chunk)))
      from.on('error', () => undefined)
      from.on('close', () => to.destroy())
      if (isSilent) from.pause()
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
    silence() {
      isSilent = true
      pauseOpen()
    },
    /** Nothing more comes through the connections that there are. */
    pauseOpen,
    restore() {
      isSilent = false
      for (const end of ends) end.resume()
    },
  }
}
