import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { STYLES } from '../../contracts/style.ts'
import { eventually } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

const trifold = await startProgram()
after(() => trifold.close())

/** The full texts of the letters in the Maildir to this address. */
async function lettersTo(email: string): Promise<string[]> {
  const folder = join(trifold.maildir, 'new')
  const names = await readdir(folder).catch(() => [])
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')))
  return texts.filter((text) => text.includes(`\r\nTo: ${email}\r\n`))
}

const newAddress = () => `${crypto.randomUUID()}@customer.example`

for (const style of STYLES) {
  test(`${style}: each notice is one letter, with its text and its id`, async () => {
    const account = await trifold.createAccount()
    const email = newAddress()
    const path = `/notification/contact/${account}`
    assert.deepEqual(await trifold.read(path, { json: { email } }, 'PUT'), { email })
    assert.deepEqual(await trifold.read(path), { email })
    await trifold.deposit(account, 100, style)
    await eventually(async () => assert.equal(await trifold.balance(account), 100))
    const { body: id } = await trifold.order(account, { style })
    await trifold.getOrder(account, id)
    await trifold.deleteOrder(account, id)

    const messages = await eventually(async () => {
      const all = await trifold.messages(account)
      assert.equal(all.length, 3)
      return all
    })
    const letters = await eventually(async () => {
      const all = await lettersTo(email)
      assert.equal(all.length, 3)
      return all
    })
    for (const message of messages) {
      const its = letters.filter((letter) =>
        letter.includes(`Message-ID: <${message.id}@trifold>\r\n`),
      )
      assert.equal(its.length, 1)
      const [head = '', body = ''] = its[0]!.split('\r\n\r\n')
      assert.match(head, /^Subject: Your (deposit|order) is (accepted|paid|refunded)\r?$/m)
      assert.match(head, /^From: Trifold <no-reply@trifold\.example>\r?$/m)
      // Long lines are folded (quoted-printable).
      assert.equal(body.replaceAll('=\r\n', '').trim(), message.text)
    }
  })
}

test('a letter goes to the contact at the time of the notice, and is not sent without a contact', async () => {
  const account = await trifold.createAccount()
  const path = `/notification/contact/${account}`
  await trifold.deposit(account, 1)
  const [first, second] = [newAddress(), newAddress()]
  await trifold.read(path, { json: { email: first } }, 'PUT')
  await trifold.deposit(account, 2)
  await trifold.read(path, { json: { email: second } }, 'PUT')
  await trifold.deposit(account, 3)
  assert.equal(await trifold.read(path, {}, 'DELETE'), account)
  assert.equal((await trifold.call('GET', path)).status, 404)
  await trifold.deposit(account, 4)
  assert.equal((await trifold.messages(account)).length, 4)

  // The last letter of this account: once it is delivered, all earlier ones are delivered too.
  const last = newAddress()
  await trifold.read(path, { json: { email: last } }, 'PUT')
  await trifold.deposit(account, 5)
  await eventually(async () => assert.equal((await lettersTo(last)).length, 1))
  const [toFirst, toSecond] = [await lettersTo(first), await lettersTo(second)]
  assert.deepEqual([toFirst.length, toSecond.length], [1, 1])
  assert.match(toFirst[0]!, /DEPOSIT 2 ACCEPTED/)
  assert.match(toSecond[0]!, /DEPOSIT 3 ACCEPTED/)
})

test('leaves all invariants intact', () => assertInvariantsHold(trifold))
