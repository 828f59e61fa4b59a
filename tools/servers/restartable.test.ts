import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { until } from '../../platform/async/until.ts'
import { startKept } from './kept-process.ts'
import { freePorts } from './ports.ts'
import { type Restartable, restartable } from './restartable.ts'

const folder = await mkdtemp(join(tmpdir(), 'trifold-restartable-'))
after(() => rm(folder, { recursive: true }))

const LIMIT_MS = 20_000

/** A parent and a child in another session. Each is an HTTP server on a separate port. */
const FAMILY = `
const [parentPort, childPort] = process.argv.slice(1).map(Number)
const answer = (port) => require('node:http').createServer((_, response) => response.end()).listen(port, '127.0.0.1')
if (childPort) {
  const { spawn } = require('node:child_process')
  spawn(process.execPath, ['-e', process.env.FAMILY, childPort], { detached: true })
} else {
  process.stdin.on('end', () => process.exit()).resume()
}
answer(parentPort)
`

async function startFamily(t: { after(work: () => Promise<void>): void }) {
  const first = await freePorts(22_000 + 2 * Math.floor(Math.random() * 2_000), 2)
  const ports = [first, first + 1]
  const answers = async (port: number) => {
    await fetch(`http://127.0.0.1:${port}`, { signal: AbortSignal.timeout(500) })
    return true
  }
  const allAnswer = () => Promise.all(ports.map(answers)).then(() => true)
  const nobodyAnswers = async () =>
    (await Promise.allSettled(ports.map(answers))).every(({ status }) => status === 'rejected')
  const server = await restartable(async () => {
    const args = ['-e', FAMILY, ...ports.map(String)]
    const logFile = join(folder, 'log')
    const kept = await startKept({ command: process.execPath, args, logFile, env: { FAMILY } })
    await until(allAnswer, { limitMs: LIMIT_MS })
    return kept
  })
  t.after(() => server.kill())
  return { server, allAnswer, nobodyAnswers }
}

const pidsDiffer = (server: Restartable, before: number) => assert.notEqual(server.pid, before)

test('kill ends a server with its children, and start brings it back at the same address', async (t) => {
  const { server, allAnswer, nobodyAnswers } = await startFamily(t)
  const before = server.pid
  await server.kill()
  assert.notEqual(await server.ended, 0)
  assert.equal(await nobodyAnswers(), true)
  await server.start()
  pidsDiffer(server, before)
  assert.equal(await allAnswer(), true)
})

test('a frozen server and its children do not respond until they are thawed', async (t) => {
  const { server, allAnswer, nobodyAnswers } = await startFamily(t)
  const before = server.pid
  await server.freeze()
  assert.equal(await nobodyAnswers(), true)
  await server.thaw()
  await until(allAnswer, { limitMs: LIMIT_MS })
  assert.equal(server.pid, before)
})

test('a frozen server can be stopped', async (t) => {
  const { server, nobodyAnswers } = await startFamily(t)
  await server.freeze()
  await server.stop()
  assert.notEqual(await server.ended, 0)
  await until(nobodyAnswers, { limitMs: LIMIT_MS })
})
