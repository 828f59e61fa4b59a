import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { SMTPServer } from 'smtp-server'
import { until } from '../../platform/async/until.ts'

// If a URL does not parse, the part after the special character may show up as host or path.
const CANARY = /canary|Y2FuYX/i
const LEFT = 'leftcanary'
const RIGHT = 'rightcanary'

const folder = await mkdtemp(join(tmpdir(), 'trifold-secrets-'))
after(() => rm(folder, { recursive: true, force: true }))

/** Starts one of our programs and records its whole output. */
function start(main: string, environment: Record<string, string>) {
  const child = spawn(process.execPath, [main], {
    env: {
      PATH: process.env.PATH,
      HOST: '127.0.0.1',
      PORT: '0',
      LOG_LEVEL: 'trace',
      ...environment,
    },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  }
  after(() => child.kill('SIGKILL'))
  const exited = once(child, 'close').then(([code]) => code as number | null)
  return {
    output: () => output,
    exited,
    async stop() {
      child.kill('SIGTERM')
      await exited
    },
  }
}

const SPECIALS = ['/', '#', '%zz', '/12/']

describe('an invalid configuration', () => {
  for (const special of SPECIALS) {
    test(`stops the program with code 2, with ${special} in the password of SMTP_URL`, async () => {
      const program = start('apps/all-in-one/main.ts', {
        DATA_DIR: join(folder, 'never'),
        SMTP_URL: `smtp://mailer:${LEFT}${special}${RIGHT}@mail.example:587`,
      })
      assert.equal(await program.exited, 2)
      assert.match(program.output(), /SMTP_URL must be /)
      assert.doesNotMatch(program.output(), CANARY)
    })
  }

  for (const url of ['smpt://mail.example', 'mail.example:587', 'smtp://']) {
    test(`stops the program with code 2 if SMTP_URL is ${url}`, async () => {
      const environment = { DATA_DIR: join(folder, 'never'), SMTP_URL: url }
      assert.equal(await start('apps/all-in-one/main.ts', environment).exited, 2)
    })
  }
})

describe('an unusable database', () => {
  for (const special of ['-', '/', '@']) {
    test(`leaves no password in the output, with ${special} in it`, async () => {
      const url = `postgres://me:${LEFT}${special}${RIGHT}@127.0.0.1:9/notification`
      const program = start('services/notification/main.ts', {
        DATABASE_URL: url,
        KAFKA_BROKERS: '127.0.0.1:9',
        PGPASSWORD: `pgcanary${special}`,
        OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9',
        OTEL_EXPORTER_OTLP_HEADERS: `authorization=Bearer headercanary`,
      })
      const ended = program.exited.then(() => true)
      const waits = until(() => program.output().includes('waiting for the database'))
      await Promise.race([ended, waits])
      await program.stop()
      assert.ok(program.output().length > 0)
      assert.doesNotMatch(program.output(), CANARY)
    })
  }
})

describe('a mail server that fails', () => {
  const password = encodeURIComponent(`${LEFT}/@#%${RIGHT}`)

  /** Starts a server on a free port. */
  async function listening(server: {
    listen(port: number, host: string, ready: () => void): unknown
  }): Promise<void> {
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  }

  async function faults() {
    const refusing = new SMTPServer({
      disabledCommands: ['STARTTLS'],
      allowInsecureAuth: true,
      // Some servers quote the login that they reject.
      onAuth: ({ password }, _session, callback) =>
        callback(Object.assign(new Error(`bad login ${password}`), { responseCode: 535 })),
    })
    await listening(refusing)
    const { port: authPort } = refusing.server.address() as { port: number }
    const unresponsive = createServer()
    await listening(unresponsive)
    const { port: unresponsivePort } = unresponsive.address() as { port: number }
    return {
      urls: [
        `smtp://mailer:${password}@127.0.0.1:9`,
        `smtp://mailer:${password}@127.0.0.1:${authPort}`,
        `smtps://mailer:${password}@127.0.0.1:${authPort}`,
        `smtps://mailer:${password}@127.0.0.1:${unresponsivePort}`,
      ],
      async close() {
        unresponsive.close()
        await new Promise<void>((resolve) => refusing.close(resolve))
      },
    }
  }

  test('leaves no password in logs, responses, metrics, outbox rows or files', async () => {
    const { urls, close } = await faults()
    for (const [index, SMTP_URL] of urls.entries()) {
      const DATA_DIR = join(folder, `mail-${index}`)
      const program = start('apps/all-in-one/main.ts', { DATA_DIR, SMTP_URL })
      const url = await until(() => /at (http:\S+)/.exec(program.output())?.[1])
      const ask = async (method: string, path: string, body?: object) => {
        const headers = { 'content-type': 'application/json' }
        const json = body && { body: JSON.stringify(body), headers }
        return (await fetch(`${url}${path}`, { method, ...json })).text()
      }
      const account = JSON.parse(await ask('POST', '/billing/account/create')) as string
      const answers = [
        await ask('PUT', `/notification/contact/${account}`, { email: 'anna@example.org' }),
        await ask('POST', `/billing/account/${account}?amount=5`),
      ]
      await until(() => program.output().includes('the mail server failed'))
      answers.push(await ask('GET', '/notification/actuator/prometheus'))
      answers.push(await ask('GET', '/notification/dead-letters'))
      assert.match(answers[2]!, /trifold_mail_down\{service="notification"\} 1/)
      await program.stop()
      assert.doesNotMatch(answers.join('\n') + program.output(), CANARY)
      const files = await readdir(DATA_DIR, { recursive: true, withFileTypes: true })
      for (const file of files.filter((one) => one.isFile())) {
        const bytes = await readFile(join(file.parentPath, file.name))
        assert.doesNotMatch(bytes.toString('latin1'), CANARY, file.name)
      }
    }
    await close()
  })
})
