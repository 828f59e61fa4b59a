import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { readConfig } from '../../platform/process/config.ts'
import { allInOneConfig } from '../all-in-one/config.ts'
import { startAllInOne } from '../all-in-one/program.ts'

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url))
const LIMIT_MS = 90_000
const ID = '00000000-0000-4000-8000-000000000000'

describe('the demo', () => {
  let folder: string

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'trifold-demo-test-'))
  })
  after(() => rm(folder, { recursive: true, force: true }))

  test('starts a program, finds that every promise is kept, and leaves nothing behind', async () => {
    const { exitCode, output } = await runDemo(['--own'], folder)
    assert.equal(exitCode, 0, output)
    assert.match(output, /^Program: http:\/\/127\.0\.0\.1:\d+, ready after /m)
    assert.match(output, /^ {2}orders 3 units +✓ 201 +\d+ ms +✓ 201 +\d+ ms +✓ 201 +\d+ ms$/m)
    assert.match(output, /^ {2}orders 3 units +✓ 402 +\d+ ms +✓ 402 +\d+ ms +✓ 201 +\d+ ms$/m)
    assert.match(output, /^ {2}orders 3 units +✓ 503 +\d+ ms +✓ 503 +\d+ ms +✓ 201 +\d+ ms$/m)
    assert.match(output, /^ {2}its payment +✓ VOIDED +✓ VOIDED +✓ PAID$/m)
    assert.match(output, /^✓ All \d+ promises were kept, in [\d.]+ s\.$/m)
    assert.doesNotMatch(output, /✗/)
    const lines = output.split('\n')
    assert.ok(lines.length <= 80, `${lines.length} lines`)
    for (const line of lines) assert.ok(line.length <= 100, line)
    assert.equal(output.includes('\u001b'), false, 'no colors unless the output is a terminal')
    assert.deepEqual(await readdir(folder), [], 'its folder is removed')
  })

  test('switches services on again when it is interrupted', async () => {
    const environment = { PORT: '0', LOG_LEVEL: 'silent', DATA_DIR: join(folder, 'data') }
    const program = await startAllInOne(readConfig(allInOneConfig, environment))
    try {
      const args = ['--url', program.url]
      const { exitCode, output } = await runDemo(args, folder, { interruptAt: /^billing is off$/m })
      assert.equal(exitCode, 130, output)
      assert.match(output, /demo failed: interrupted/)
      const running = Object.entries(program.lab).map(([name, one]) => [name, one.running()])
      assert.deepEqual(
        running.filter(([, isRunning]) => !isRunning),
        [],
      )
    } finally {
      await program.close()
    }
  })

  test('lists the promises that a program breaks, and exits with 1', async () => {
    const impostor = await startImpostor()
    const url = `http://127.0.0.1:${(impostor.address() as AddressInfo).port}`
    try {
      const { exitCode, output } = await runDemo(['--url', url, '--wait', '0.05'], folder)
      assert.equal(exitCode, 1, output)
      assert.match(output, /✓ 201 +\d+ ms +✓ 201/, 'kept promises are shown as kept')
      assert.match(output, /✗ CANCELED, not APPROVED/)
      assert.match(output, /services of this program cannot be switched off/)
      assert.match(output, /^✗ \d+ of \d+ promises were not kept:$/m)
      assert.match(output, /left, .*: orders 3 units, http: promised 402, seen 201$/m)
      assert.match(output, /: the notices, hybrid: promised deposit, paid, seen none$/m)
    } finally {
      impostor.close()
      impostor.closeAllConnections()
    }
  })

  test('drives the program at the PORT of the environment by default', async () => {
    const server = await startImpostor()
    const { port } = server.address() as AddressInfo
    try {
      const args = ['--wait', '0.05']
      const { output } = await runDemo(args, folder, { environment: { PORT: String(port) } })
      assert.match(output, new RegExp(`^Program: http://127\\.0\\.0\\.1:${port}$`, 'm'))
    } finally {
      server.close()
      server.closeAllConnections()
    }
  })

  test('exits with 1 if no program responds', async () => {
    const { exitCode, output } = await runDemo(
      ['--url', 'http://127.0.0.1:9', '--wait', '0.05'],
      folder,
    )
    assert.equal(exitCode, 1)
    assert.match(output, /no healthy program at http:\/\/127\.0\.0\.1:9\/orders\/health/)
  })

  test('prints its usage', async () => {
    const help = await runDemo(['--help'], folder)
    assert.equal(help.exitCode, 0)
    for (const option of ['--url', '--own', '--wait', '--help']) {
      assert.ok(help.output.includes(option), option)
    }
    const wrong = await runDemo(['--fast'], folder)
    assert.equal(wrong.exitCode, 2)
    assert.match(wrong.output, /--fast/)
  })
})

/** Runs the demo with its temporary files in a folder, and interrupts it when its output matches the pattern. */
async function runDemo(
  args: readonly string[],
  folder: string,
  { interruptAt, environment }: { interruptAt?: RegExp; environment?: NodeJS.ProcessEnv } = {},
) {
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd: folder,
    env: { TMPDIR: folder, NO_COLOR: '1', ...environment },
    signal: AbortSignal.timeout(LIMIT_MS),
  })
  let output = ''
  let interrupted = false
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (interrupted || !interruptAt?.test(output)) return
      interrupted = true
      child.kill('SIGINT')
    })
  }
  const [exitCode] = (await once(child, 'close')) as [number | null]
  return { exitCode, output }
}

async function startImpostor(): Promise<Server> {
  const server = createServer((request, response) => {
    const [status, body] = wrongAnswer(request)
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

/** A program that accepts every order, cancels it, and sends no notice. */
function wrongAnswer({ method, url = '' }: IncomingMessage): [number, unknown] {
  if (url === '/orders/health') return [200, { status: 'OK' }]
  if (url === '/billing/account/create') return [200, ID]
  if (method === 'POST' && url.startsWith('/orders')) return [201, ID]
  if (url.startsWith(`/orders/${ID}`)) return [200, { id: ID, state: 'CANCELED' }]
  return [404, {}]
}
