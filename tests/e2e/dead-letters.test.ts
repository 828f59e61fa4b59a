import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import type { DeadLetterView } from '../../contracts/http.ts'
import { createOutbox } from '../../messaging/outbox/outbox.ts'
import { eventually, FRESH, type Problem } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

const trifold = await startProgram()
const { call, read, readAll } = trifold
/** A foreign producer that writes to the same log. */
const bus = await trifold.openBus()
after(async () => {
  await bus.close()
  await trifold.close()
})

type Letter = DeadLetterView
const lettersOf = async (service: string, key: string): Promise<Letter[]> =>
  (await readAll<Letter>(`/${service}/dead-letters`)).filter((letter) => letter.key === key)

/** Sends bytes to a topic and waits until each of these services has stored them as a dead letter. */
async function poison(
  topic: 'billing' | 'payment',
  key: string,
  text: string | Uint8Array,
  services: readonly string[] = ['billing'],
): Promise<Letter[]> {
  const value = typeof text === 'string' ? new TextEncoder().encode(text) : text
  const before = await Promise.all(services.map((service) => lettersOf(service, key)))
  await bus.send([{ topic, key, value, headers: {} }])
  // A later message in the same partition, which also makes the program's own bus poll that partition.
  await trifold.deposit(key, 1, 'events')
  return eventually(async () => {
    const now = await Promise.all(services.map((service) => lettersOf(service, key)))
    for (const [index, letters] of now.entries()) {
      assert.equal(letters.length, before[index]!.length + 1)
    }
    return now.map((letters) => letters.at(-1)!)
  })
}

const one = ({ id }: Letter, service = 'billing') => `/${service}/dead-letters/${id}`
const replay = (letter: Letter, json?: unknown, service = 'billing') =>
  call<Problem>('POST', `${one(letter, service)}/replay`, { json })

async function settledAccount(): Promise<string> {
  const account = await trifold.createAccount()
  await trifold.deposit(account, 100)
  return account
}

describe('bytes that no service understands', () => {
  test('are listed with their reason and position, and can be read one by one', async () => {
    const account = await settledAccount()
    const [letter] = await poison('billing', account, 'not "JSON"')
    const { id, partition, offset, reason, created, ...rest } = letter!
    assert.deepEqual(rest, {
      source: 'broker',
      topic: 'billing',
      key: account,
      headers: {},
      body: 'not "JSON"',
      code: 'UNREADABLE',
    })
    assert.match(reason, /not JSON/)
    assert.match(offset, /^\d+$/)
    assert.ok(partition >= 0 && Date.now() - Date.parse(created) < 60_000)
    for (const prefix of ['', '/otusapp/gur-ok']) {
      assert.deepEqual(await read(`${prefix}/billing/dead-letters/${id}/`), letter)
    }
    const metrics = await read<string>('/billing/actuator/prometheus', FRESH)
    assert.match(metrics, /^trifold_dead_letters\{service="billing"\} [1-9]/m)
    assert.equal((await call('GET', `/orders/dead-letters/${id}`)).status, 404)
  })

  test('are shown in base64 if they are not text', async () => {
    const account = await settledAccount()
    const [letter] = await poison('billing', account, Uint8Array.of(0xff, 0x00, 0xfe))
    assert.equal(letter?.encoding, 'base64')
    assert.equal(letter.body, '/wD+')
  })

  test('stay dead letters when they are replayed unchanged', async () => {
    const account = await settledAccount()
    const [letter] = await poison('billing', account, '{"event":"ORDER_PAID"}')
    for (const json of [undefined, {}]) {
      const { status, body } = await replay(letter!, json)
      assert.deepEqual([status, body.code], [409, 'REPLAY_FAILED'])
      assert.equal(body.reason, 'ORDER_PAID does not belong on topic billing')
    }
    assert.deepEqual(await read(one(letter!)), letter)
  })

  test('take effect once when they are replayed with a corrected body', async () => {
    const account = await settledAccount()
    const [letter] = await poison('billing', account, `{"event":"DEPOSIT_REQUEST"`)
    await eventually(async () => assert.equal(await trifold.balance(account), 101))
    const body = { event: 'DEPOSIT_REQUEST', accountId: account, value: 42.5 }
    const answers = await Promise.all([1, 2, 3, 4].map(() => replay(letter!, { body })))
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 404, 404, 404])
    const done = answers.find(({ status }) => status === 200)
    assert.deepEqual([done?.body, done?.headers.get('x-replay')], [letter?.id, 'handled'])
    assert.equal((await replay(letter!, { body })).body.code, 'DEAD_LETTER_NOT_FOUND')
    assert.equal(await trifold.balance(account), 143.5)
    assert.deepEqual(await lettersOf('billing', account), [])
    await eventually(async () => assert.equal((await trifold.messages(account)).length, 3))
    const [, , deposit] = await trifold.entries(account)
    assert.equal(deposit?.depositId, `billing/${letter?.partition}/${letter?.offset}`)
  })

  test('can be corrected as text; a dead letter whose replay a rule rejects stays, with the new reason', async () => {
    const account = await settledAccount()
    const [letter] = await poison('billing', account, '?')
    const other = crypto.randomUUID()
    const request = { event: 'DEPOSIT_REQUEST', accountId: other, value: 7 }
    const refused = await replay(letter!, { body: JSON.stringify(request) })
    assert.equal(refused.status, 409)
    assert.match(refused.body.reason ?? '', /DEPOSIT_REQUEST was refused: ACCOUNT_NOT_FOUND/)
    const kept = await read<Letter>(one(letter!))
    assert.deepEqual([kept.code, kept.body], ['REFUSED', '?'])
    assert.equal(kept.reason, `replayed with another body: ${refused.body.reason}`)
    const body = JSON.stringify({ ...request, accountId: account })
    assert.equal((await replay(letter!, { body })).status, 200)
    assert.equal(await trifold.balance(account), 108)
  })
})

test('a dead letter is replayed only in its own service', async () => {
  const account = await settledAccount()
  const [order, notification] = await poison('payment', account, '!', ['orders', 'notification'])
  const body = { event: 'DEPOSIT_ACCEPTED', accountId: account, value: 5 }
  assert.equal((await replay(notification!, { body }, 'notification')).status, 200)
  const texts = (await trifold.messages(account)).map(({ text }) => text)
  assert.equal(texts.filter((text) => text.startsWith('DEPOSIT 5 ACCEPTED')).length, 1)
  assert.deepEqual(await lettersOf('orders', account), [order])
  assert.equal((await replay(order!, { body }, 'orders')).status, 200)
  assert.deepEqual(await lettersOf('orders', account), [])
})

test('a rejected call is sent again under the same event id when it is corrected', async () => {
  const account = await settledAccount()
  const { billing, notification } = trifold.databases
  const eventId = `${account}/TOLD`
  const right = { event: 'DEPOSIT_ACCEPTED', accountId: account, value: 9 }
  const outbox = createOutbox('billing')
  await billing.transaction((tx) =>
    outbox.enqueue(tx, [
      {
        carrier: 'http',
        destination: '/notification/',
        key: account,
        eventId,
        body: JSON.stringify({ ...right, value: 'nine' }),
        headers: { 'content-type': 'application/json', 'idempotency-key': eventId },
      },
    ]),
  )
  const alone = () =>
    eventually(async () => {
      const letters = await lettersOf('billing', account)
      assert.equal(letters.length, 1)
      return letters[0]!
    })
  const first = await alone()
  assert.deepEqual([first.source, first.topic], ['outbox', 'http:/notification/'])
  assert.match(first.reason, /responded with status 400/)

  const again = await replay(first)
  assert.deepEqual([again.status, again.headers.get('x-replay')], [200, 'queued'])
  const second = await eventually(async () => {
    const letter = await alone()
    assert.notEqual(letter.offset, first.offset)
    return letter
  })
  assert.equal(second.id, first.id)
  assert.equal((await replay(second, { body: right })).status, 200)
  await eventually(async () => {
    const texts = (await trifold.messages(account)).map(({ text }) => text)
    assert.equal(texts.filter((text) => text.startsWith('DEPOSIT 9 ACCEPTED')).length, 1)
  })
  const notice = 'select event_id from notification.message where event_id = $1'
  assert.equal((await notification.query(notice, [eventId])).length, 1)
  assert.deepEqual(await lettersOf('billing', account), [])
})

test('dead letters are listed oldest first, page by page, and removed one by one', async () => {
  const account = await settledAccount()
  for (const text of ['a', 'b', 'c']) await poison('billing', account, text)
  const mine = async (limit: number) =>
    (await readAll<Letter>('/billing/dead-letters', limit)).filter(({ key }) => key === account)
  const all = await mine(500)
  assert.deepEqual(
    all.map(({ body }) => body),
    ['a', 'b', 'c'],
  )
  for (const limit of [1, 2, 3]) assert.deepEqual(await mine(limit), all)
  for (const letter of all) {
    assert.equal(await read(one(letter), {}, 'DELETE'), letter.id)
    assert.equal((await call<Problem>('DELETE', one(letter))).body.code, 'DEAD_LETTER_NOT_FOUND')
  }
  assert.deepEqual(await mine(500), [])
})

test('an unknown id gets 404, and an invalid id or body 400, in every service', async () => {
  for (const service of ['orders', 'billing', 'notification']) {
    const path = `/${service}/dead-letters`
    const unknown = `${path}/${crypto.randomUUID()}`
    const calls = [
      ['GET', '', {}],
      ['DELETE', '', {}],
      ['POST', '/replay', {}],
      ['POST', '/replay', { json: { body: 'text' } }],
    ] as const
    for (const [method, suffix, options] of calls) {
      const missing = await call<Problem>(method, `${unknown}${suffix}`, options)
      assert.deepEqual([missing.status, missing.body.code], [404, 'DEAD_LETTER_NOT_FOUND'])
      const bad = await call<Problem>(method, `${path}/42${suffix}`, options)
      assert.deepEqual([bad.status, bad.body.field], [400, 'params/id'])
    }
    for (const json of [{ body: 5 }, { body: null }, { body: [] }, { value: 'x' }, 'text']) {
      const { status, body } = await call<Problem>('POST', `${unknown}/replay`, { json })
      assert.deepEqual([status, body.code], [400, 'VALIDATION_FAILED'], JSON.stringify(json))
    }
    assert.equal((await call('GET', `${path}?limit=0`)).status, 400)
    const { paths } = await read<{ paths: object }>(`/${service}/openapi.json`)
    assert.ok(`${path}/{id}/replay` in paths)
  }
})

test('leaves all invariants intact', async () => {
  for (const service of ['orders', 'billing', 'notification']) {
    for (const letter of await readAll<Letter>(`/${service}/dead-letters`)) {
      await read(one(letter, service), {}, 'DELETE')
    }
  }
  await assertInvariantsHold(trifold)
})
