import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DatabaseError } from '../platform/database/database.ts'
import { HttpUnreachable } from '../platform/http/client.ts'
import { openPglite } from '../platform/pglite/pglite.ts'
import type { Telemetry } from '../platform/telemetry/telemetry.ts'
import { measuredCalls, measuredDatabase } from './measured.ts'

/** Telemetry that records each observation as a line, without its duration. */
function observed() {
  const lines: string[] = []
  const telemetry: Pick<Telemetry, 'observe'> = {
    observe(name, seconds, ...[labels]) {
      assert.ok(seconds >= 0 && seconds < 60, `${name} ${seconds}`)
      lines.push(`${name} ${Object.values(labels ?? {}).join(' ')}`)
    },
  }
  return { lines, telemetry }
}

test('a measured database reports queries and transactions with their outcome, and returns their results unchanged', async (t) => {
  const { lines, telemetry } = observed()
  const database = measuredDatabase(await openPglite(), telemetry)
  t.after(() => database.close())
  assert.deepEqual(await database.query('select 1 as one'), [{ one: 1 }])
  assert.equal(await database.transaction(async () => 'committed'), 'committed')
  await assert.rejects(database.query("select 'x'::integer"), DatabaseError)
  await assert.rejects(
    database.transaction((tx) => tx.query('select * from nothing')),
    DatabaseError,
  )
  const conflict = new DatabaseError('lost', 'conflict')
  await assert.rejects(
    database.transaction(() => Promise.reject(conflict)),
    conflict,
  )
  await assert.rejects(
    database.transaction(() => Promise.reject(new TypeError('a fault'))),
    TypeError,
  )
  assert.deepEqual(lines, [
    'trifold_database_seconds query done',
    'trifold_database_seconds transaction done',
    'trifold_database_seconds query invalid',
    'trifold_database_seconds transaction unavailable',
    'trifold_database_seconds transaction conflict',
    'trifold_database_seconds transaction aborted',
  ])
})

test('a measured HTTP client reports calls by target and status class, including calls without a response', async () => {
  const { lines, telemetry } = observed()
  const answers = [200, 402, 503]
  const http = measuredCalls(async () => {
    const status = answers.shift()
    if (status === undefined) throw new HttpUnreachable('nobody is there', undefined)
    return { status, body: '' }
  }, telemetry)
  const call = { target: 'billing', method: 'GET', url: 'http://127.0.0.1', headers: {} } as const
  for (const status of [200, 402, 503]) assert.equal((await http(call, 100)).status, status)
  await assert.rejects(http({ ...call, target: 'order' }, 100), HttpUnreachable)
  assert.deepEqual(lines, [
    'trifold_http_client_seconds billing 2xx',
    'trifold_http_client_seconds billing 4xx',
    'trifold_http_client_seconds billing 5xx',
    'trifold_http_client_seconds order none',
  ])
})
