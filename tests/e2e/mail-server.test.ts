import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { after, afterEach, test } from 'node:test'
import { SMTPServer } from 'smtp-server'
import { eventually } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

const port = await freePort()
const received: { readonly to: string[]; readonly text: string }[] = []
/** The errors with which the mail server rejects the next letters. */
const rejections: { responseCode: number; message: string }[] = []
let server: SMTPServer | undefined

const trifold = await startProgram({ SMTP_URL: `smtp://127.0.0.1:${port}` })
after(() => trifold.close())
afterEach(stopServer)

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  await new Promise((resolve) => probe.close(resolve))
  return port
}

async function startServer(): Promise<void> {
  server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    closeTimeout: 100,
    onData(stream, { envelope }, callback) {
      let text = ''
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      stream.on('end', () => {
        const rejection = rejections.shift()
        if (rejection) return callback(Object.assign(new Error(rejection.message), rejection))
        received.push({ to: envelope.rcptTo.map(({ address }) => address), text })
        callback()
      })
    },
  })
  // Connections may break when the program stops; that is not a failure of the test.
  server.on('error', () => undefined)
  await new Promise<void>((resolve) => server?.listen(port, '127.0.0.1', () => resolve()))
}

async function stopServer(): Promise<void> {
  const running = server
  server = undefined
  if (running) await new Promise<void>((resolve) => running.close(() => resolve()))
}

async function accountWithContact(): Promise<{ account: string; email: string }> {
  const account = await trifold.createAccount()
  const email = `${account}@customer.example`
  await trifold.read(`/notification/contact/${account}`, { json: { email } }, 'PUT')
  return { account, email }
}

const lettersTo = (email: string) => received.filter(({ to }) => to.includes(email))

test('a notice is one letter at the mail server, and its Message-ID is the id of the notice', async () => {
  await startServer()
  const { account, email } = await accountWithContact()
  await trifold.deposit(account, 199)
  await eventually(async () => assert.equal(lettersTo(email).length, 1))
  const [message] = await trifold.messages(account)
  const { text } = lettersTo(email)[0]!
  assert.ok(text.includes(`Message-ID: <${message?.id}@trifold>`))
  assert.match(text, /DEPOSIT 199 ACCEPTED ON ACCOUNT/)
})

test('while the mail server is down notices are written; their letters follow later, once, in order', async () => {
  const { account, email } = await accountWithContact()
  for (const amount of [1, 2, 3]) await trifold.deposit(account, amount)
  assert.equal((await trifold.messages(account)).length, 3)
  await startServer()
  await eventually(async () => assert.equal(lettersTo(email).length, 3))
  // The fourth letter is sent after any duplicate of the first three.
  await trifold.deposit(account, 4)
  await eventually(async () => assert.ok(lettersTo(email).length >= 4))
  const amounts = lettersTo(email).map(({ text }) => /DEPOSIT (\d+) ACCEPTED/.exec(text)?.[1])
  assert.deepEqual(amounts, ['1', '2', '3', '4'])
})

test('a letter that the mail server rejects temporarily is retried; a letter that it rejects permanently delays no other', async () => {
  await startServer()
  const { account, email } = await accountWithContact()
  rejections.push({ responseCode: 451, message: 'try again later' })
  await trifold.deposit(account, 1)
  await eventually(async () => assert.equal(lettersTo(email).length, 1))
  rejections.push({ responseCode: 554, message: 'we do not want this' })
  await trifold.deposit(account, 2)
  await trifold.deposit(account, 3)
  await eventually(async () => assert.equal(lettersTo(email).length, 2))
  assert.match(lettersTo(email)[1]!.text, /DEPOSIT 3 ACCEPTED/)
})

test('leaves all invariants intact, except for the rejected letter', () =>
  assertInvariantsHold(trifold, ({ sentence }) => sentence.endsWith('554 we do not want this')))
