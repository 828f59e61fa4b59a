import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, describe, test } from 'node:test'
import newman, { type Failure, type RunOptions, type Summary } from 'newman'
import { type RunningProgram, startProgram } from '../e2e/program.ts'

const file = new URL('trifold.postman_collection.json', import.meta.url)
const collection = JSON.parse(await readFile(file, 'utf8')) as { item: Folder[] }
const styles = ['http', 'hybrid', 'events']
const REQUEST_TIMEOUT_MS = 60_000
const RUN_TIMEOUT_MS = 240_000

interface Folder {
  readonly name: string
  readonly item: readonly { readonly name: string }[]
}

describe('the acceptance collection', () => {
  let program: RunningProgram

  before(async () => {
    program = await startProgram()
  })
  after(() => program?.close())

  // The second run starts with the data that the first one left behind.
  for (const prefix of ['', '/otusapp/gur-ok']) {
    test(`passes in every style at base URLs that end with "${prefix}"`, async (t) => {
      const { run } = await runCollection(`${program.url}${prefix}`)
      t.diagnostic(summaryOf(run))
      assert.deepEqual(run.failures.map(failureText), [])
      const expected = collection.item.reduce((sum, { item }) => sum + item.length, 0)
      assert.ok(run.stats.requests.total >= expected, 'every request was sent')
    })
  }

  test('fails on a program that gives wrong responses', async () => {
    const impostor = createServer((_request, response) => {
      response.setHeader('content-type', 'application/json')
      response.end('{"status":"DOWN"}')
    })
    await new Promise<void>((resolve) => impostor.listen(0, '127.0.0.1', resolve))
    const { port } = impostor.address() as AddressInfo
    try {
      const { run } = await runCollection(`http://127.0.0.1:${port}`, 'Health')
      assert.equal(run.stats.assertions.failed, 6)
      const failures = run.failures.map(failureText)
      assert.match(failures[0] ?? '', /^Health \/ orders: health: it is healthy: .*DOWN/)
    } finally {
      impostor.close()
      impostor.closeAllConnections()
    }
  })

  test('covers the whole flow in each style', () => {
    const steps = collection.item
      .filter(({ name }) => styles.includes(name))
      .map(({ item }) => item.map(({ name }) => name).filter((name) => name !== EVENTS_ONLY))
    assert.equal(steps.length, styles.length)
    for (const own of steps) assert.deepEqual(own, steps[0])
  })
})

/** A step that only `events` has, because its orders are stored before they have an outcome. */
const EVENTS_ONLY = 'The order is known at once'

/** Rejects if the run itself fails; failed assertions are in the summary. */
function runCollection(baseUrl: string, folder?: string): Promise<Summary> {
  const options: RunOptions = {
    collection,
    envVar: [{ key: 'baseUrl', value: baseUrl }],
    timeout: RUN_TIMEOUT_MS,
    timeoutRequest: REQUEST_TIMEOUT_MS,
    ...(folder && { folder }),
  }
  return new Promise((resolve, reject) => {
    newman.run(options, (error, summary) => {
      const broken = error ?? summary.error
      if (broken) reject(broken)
      else resolve(summary)
    })
  })
}

function summaryOf({ stats, failures }: Summary['run']): string {
  const { requests, assertions } = stats
  return `${requests.total} requests, ${assertions.total} assertions, ${failures.length} failed`
}

function failureText({ source, error }: Failure): string {
  const place = [source?.parent()?.name, source?.name].filter(Boolean).join(' / ')
  return `${place}: ${error.test ?? error.name}: ${error.message}`
}
