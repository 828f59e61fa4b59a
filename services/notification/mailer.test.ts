import assert from 'node:assert/strict'
import fs, {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { SMTPServer, type SMTPServerOptions } from 'smtp-server'
import type { OutboxRow } from '../../messaging/outbox/outbox.ts'
import type { Log } from '../../platform/async/runtime.ts'
import { createMailer } from './mailer.ts'

const folder = await mkdtemp(join(tmpdir(), 'trifold-mail-'))
after(() => rm(folder, { recursive: true }))

const letter = (given: Partial<OutboxRow> = {}): OutboxRow => ({
  carrier: 'letter',
  id: 1n,
  destination: 'anna@example.org',
  key: 'anna',
  eventId: 'e-1',
  body: 'ORDER 42 PAID SUCCESSFULLY',
  headers: {
    'message-id': '<0190aaaa-0000-7000-8000-000000000001@trifold>',
    subject: 'Your order is paid',
    date: '2026-03-01T10:20:30.456Z',
  },
  attempts: 0,
  ...given,
})
const from = 'Trifold <no-reply@trifold.example>'

function recordingLog(): Log & { readonly lines: string[] } {
  const lines: string[] = []
  const write = (_members: object, sentence: string) => void lines.push(sentence)
  return { lines, debug: write, info: write, warn: write, error: write }
}

describe('the Maildir', () => {
  const inFolder = (maildir: string, log = recordingLog()) =>
    createMailer({ from, smtpUrl: '', maildir, timeoutMs: 2_000, log })

  test('gets a letter that any mail reader can open', async () => {
    const maildir = join(folder, 'one')
    assert.deepEqual(await inFolder(maildir).deliver(letter()), { kind: 'done' })
    const names = await readdir(join(maildir, 'new'))
    assert.equal(names.length, 1)
    const text = await readFile(join(maildir, 'new', names[0]!), 'utf8')
    const [head = '', body = ''] = text.split('\r\n\r\n')
    assert.match(head, /^From: Trifold <no-reply@trifold.example>$/m)
    assert.match(head, /^To: anna@example.org$/m)
    assert.match(head, /^Subject: Your order is paid$/m)
    assert.match(head, /^Message-ID: <0190aaaa-0000-7000-8000-000000000001@trifold>$/m)
    assert.match(head, /^Date: Sun, 01 Mar 2026 10:20:30 \+0000$/m)
    assert.equal(body.trim(), 'ORDER 42 PAID SUCCESSFULLY')
    assert.deepEqual(await readdir(join(maildir, 'tmp')), [])
  })

  test('contains a letter once, however often it is delivered', async () => {
    const maildir = join(folder, 'twice')
    const { deliver } = inFolder(maildir)
    for (let n = 0; n < 3; n += 1) assert.equal((await deliver(letter())).kind, 'done')
    const other = letter({ headers: { 'message-id': '<other@trifold>' } })
    await deliver(other)
    assert.equal((await readdir(join(maildir, 'new'))).length, 2)
  })

  test('contains a letter once, even after a mail reader has moved and flagged it', async () => {
    const maildir = join(folder, 'read')
    const { deliver } = inFolder(maildir)
    await deliver(letter())
    const [name = ''] = await readdir(join(maildir, 'new'))
    for (const [from, to] of [
      [join('new', name), join('cur', `${name}:2,`)],
      [join('cur', `${name}:2,`), join('cur', `${name}:2,FRS`)],
    ] as const) {
      await rename(join(maildir, from), join(maildir, to))
      assert.deepEqual(await deliver(letter()), { kind: 'done' })
      assert.deepEqual(await readdir(join(maildir, 'new')), [])
    }
  })

  test('is never listed, because listing takes longer with every letter', async (t) => {
    for (const method of ['readdir', 'opendir'] as const) {
      t.mock.method(fs, method, () => assert.fail(`${method} was called`))
    }
    syncBuiltinESMExports()
    t.after(() => {
      t.mock.restoreAll()
      syncBuiltinESMExports()
    })
    const { deliver } = inFolder(join(folder, 'unlisted'))
    for (let n = 0; n < 2; n += 1) assert.deepEqual(await deliver(letter()), { kind: 'done' })
  })

  test('has the letter and its file name on disk before the letter counts as delivered', {
    skip: process.platform === 'win32' && 'folders cannot be flushed',
  }, async (t) => {
    const maildir = join(folder, 'outer', 'flushed')
    const flushed: string[] = []
    const { open } = fs
    t.mock.method(fs, 'open', async (...args: Parameters<typeof open>) => {
      const handle = await open(...args)
      const { sync } = handle
      handle.sync = async () => {
        await sync.call(handle)
        const path = String(args[0])
        // Flushing a folder makes the names that it has at that time durable.
        const isFolder = path === join(maildir, 'new')
        flushed.push(isFolder ? `new with ${(await readdir(path)).length}` : path)
      }
      return handle
    })
    syncBuiltinESMExports()
    t.after(() => {
      t.mock.restoreAll()
      syncBuiltinESMExports()
    })
    const { deliver } = inFolder(maildir)
    assert.deepEqual(await deliver(letter()), { kind: 'done' })
    for (const path of [maildir, join(folder, 'outer'), folder]) assert.ok(flushed.includes(path))
    const [draft = '', name] = flushed.slice(-2)
    assert.ok(draft.startsWith(join(maildir, 'tmp')), draft)
    assert.equal(name, 'new with 1')
    assert.deepEqual(await deliver(letter()), { kind: 'done' })
    assert.deepEqual(flushed.slice(-2), ['new with 1', 'new with 1'])
  })

  test('is readable only by its owner', async () => {
    const maildir = join(folder, 'private')
    await inFolder(maildir).deliver(letter())
    const [name = ''] = await readdir(join(maildir, 'new'))
    const modeOf = async (path: string) => (await stat(join(maildir, path))).mode & 0o777
    for (const path of ['.', 'tmp', 'new', 'cur']) assert.equal(await modeOf(path), 0o700, path)
    assert.equal(await modeOf(join('new', name)), 0o600)
  })

  test('is logged once at the start and once at the end of an outage in which it cannot be written to', async () => {
    const maildir = join(folder, 'no-folder')
    await writeFile(maildir, 'a file')
    const log = recordingLog()
    const mailer = inFolder(maildir, log)
    for (let n = 0; n < 3; n += 1) assert.equal((await mailer.deliver(letter())).kind, 'retry')
    assert.equal(mailer.isDown(), true)
    await rm(maildir)
    await mkdir(maildir)
    assert.equal((await mailer.deliver(letter())).kind, 'done')
    assert.equal(mailer.isDown(), false)
    const lines = ['the Maildir failed; retrying', 'the Maildir works again']
    assert.deepEqual(log.lines, lines)
  })
})

describe('the mail server', () => {
  type Got = { from: string; to: string[]; text: string }

  /** A mail server in this process. It is closed when the test ends. */
  async function listen(
    t: { after(work: () => Promise<void> | void): void },
    options: SMTPServerOptions = {},
  ) {
    const got: Got[] = []
    const server = new SMTPServer({
      disabledCommands: ['AUTH', 'STARTTLS'],
      onData(stream, session, callback) {
        const chunks: Uint8Array[] = []
        stream.on('data', (chunk: Uint8Array) => chunks.push(chunk))
        stream.on('end', () => {
          const { mailFrom, rcptTo } = session.envelope
          const sender = mailFrom ? mailFrom.address : ''
          const text = Buffer.concat(chunks).toString()
          got.push({ from: sender, to: rcptTo.map(({ address }) => address), text })
          callback()
        })
      },
      ...options,
    })
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    const { port } = server.server.address() as { port: number }
    const mailers: { close(): void }[] = []
    const at = (login = '') => {
      const mailer = createMailer({
        from,
        maildir: '',
        timeoutMs: 2_000,
        log: recordingLog(),
        smtpUrl: `smtp://${login}127.0.0.1:${port}`,
      })
      mailers.push(mailer)
      return mailer
    }
    t.after(async () => {
      for (const mailer of mailers) mailer.close()
      await new Promise<void>((resolve) => server.close(resolve))
    })
    return { got, at }
  }

  test('receives the letter with the same Message-ID in every attempt', async (t) => {
    const { got, at } = await listen(t)
    const { deliver } = at()
    for (let n = 0; n < 2; n += 1) assert.deepEqual(await deliver(letter()), { kind: 'done' })
    const ids = got.map(({ text }) => /^Message-ID: (.*)$/im.exec(text)?.[1]?.trim())
    assert.deepEqual(ids, Array(2).fill('<0190aaaa-0000-7000-8000-000000000001@trifold>'))
    assert.equal(got[0]?.from, 'no-reply@trifold.example')
    assert.deepEqual(got[0]?.to, ['anna@example.org'])
  })

  const refusing = (responseCode: number): SMTPServerOptions => ({
    onRcptTo: (_address, _session, callback) =>
      callback(Object.assign(new Error('not now, or never'), { responseCode })),
  })

  test('makes a letter poison by rejecting the address permanently', async (t) => {
    const { at } = await listen(t, refusing(550))
    const delivery = await at().deliver(letter())
    assert.equal(delivery.kind, 'poison')
    assert.match((delivery as { reason: string }).reason, /550/)
  })

  test('is retried after rejecting the address temporarily, and does not count as down', async (t) => {
    const { at } = await listen(t, refusing(451))
    const mailer = at()
    assert.equal((await mailer.deliver(letter())).kind, 'retry')
    assert.equal(mailer.isDown(), false)
  })

  test('is retried after rejecting the login, because the letter is not at fault', async (t) => {
    const { at } = await listen(t, {
      disabledCommands: ['STARTTLS'],
      allowInsecureAuth: true,
      onAuth: (_auth, _session, callback) =>
        callback(Object.assign(new Error('wrong password'), { responseCode: 535 })),
    })
    assert.equal((await at('us:wrong@').deliver(letter())).kind, 'retry')
  })

  test('is retried while it rejects all connections', async (t) => {
    const { at } = await listen(t, {
      onConnect: (_session, callback) =>
        callback(Object.assign(new Error('no service here'), { responseCode: 554 })),
    })
    assert.equal((await at().deliver(letter())).kind, 'retry')
  })

  test('is retried while it is down', async () => {
    const probe = createServer()
    await new Promise<void>((resolve) => void probe.listen(0, '127.0.0.1', resolve))
    const { port } = probe.address() as { port: number }
    await new Promise((resolve) => probe.close(resolve))
    const smtpUrl = `smtp://127.0.0.1:${port}`
    const log = recordingLog()
    const mailer = createMailer({ from, smtpUrl, maildir: '', timeoutMs: 2_000, log })
    for (let n = 0; n < 3; n += 1) assert.equal((await mailer.deliver(letter())).kind, 'retry')
    assert.equal(mailer.isDown(), true)
    assert.deepEqual(log.lines, ['the mail server failed; retrying'])
    mailer.close()
  })
})
