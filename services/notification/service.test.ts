// This file is long because one service, with its database, topic and Maildir, serves all tests.
import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { until } from '../../platform/async/until.ts'
import { caller, openParts, sendBare } from '../../tests/support/harness.ts'
import { createNotificationService } from './service.ts'
import { expireTexts } from './store.ts'

const LETTERS_PER_HOUR = 5
const maildir = await mkdtemp(join(tmpdir(), 'trifold-letters-'))
const { parts, close } = await openParts('notification')
const { bus, database } = parts
const service = await createNotificationService(parts, {
  LETTER_FROM: 'Trifold <no-reply@trifold.example>',
  LETTERS_PER_HOUR,
  MAILDIR: maildir,
  SMTP_URL: '',
})
after(async () => {
  await service.close()
  await close()
  await rm(maildir, { recursive: true })
})
const call = caller(service)

const newId = () => crypto.randomUUID()
interface Message {
  readonly id: string
  readonly account: string
  readonly text: string
  readonly event: string
  readonly created: string
}
const messagesOf = async (accountId: string, query = ''): Promise<Message[]> =>
  (await call('GET', `/notification/account/${accountId}${query}`)).body
/** Resolves with the account's messages once there are at least `count`. */
const awaitMessages = (accountId: string, count = 1) =>
  until(
    async () => {
      const messages = await messagesOf(accountId, '?limit=500')
      return messages.length >= count && messages
    },
    { what: `${count} messages for ${accountId}` },
  )
/** Waits until the notification service has handled everything that was sent for an account before this call. */
async function passed(accountId: string): Promise<void> {
  const orderId = newId()
  await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId, accountId })
  await until(async () => {
    const found = await database.query(
      'select from notification.message where account_id = $1 and text like $2',
      [accountId, `%${orderId}%`],
    )
    return found.length > 0
  })
}

test('the failure of an order is not announced after its payment was, whether it arrives by call or event', async () => {
  const [accountId, orderId, other] = [newId(), newId(), newId()]
  const send = (event: string, order: string, more: object = {}) =>
    sendBare(
      bus,
      'payment',
      { event, orderId: order, accountId, ...more },
      { ce_id: `${order}/${event}`, 'x-reason': 'DEADLINE_PASSED' },
    )
  const refund = { value: 65 }
  await send('ORDER_PAID', orderId)
  await send('PAYMENT_FAIL', orderId)
  await send('PAYMENT_REFUNDED', orderId, refund)
  // If the failure arrives first, all notices are written, and the notice of the refund is the last one.
  await send('PAYMENT_FAIL', other)
  await send('ORDER_PAID', other)
  await send('PAYMENT_REFUNDED', other, refund)
  await passed(accountId)
  const events = (await messagesOf(accountId)).map(({ event, text }) => [
    event,
    text.includes(other),
  ])
  assert.deepEqual(events.slice(0, 5), [
    ['ORDER_PAID', false],
    ['PAYMENT_REFUNDED', false],
    ['PAYMENT_FAIL', true],
    ['ORDER_PAID', true],
    ['PAYMENT_REFUNDED', true],
  ])
  const { status } = await call('POST', '/notification/', {
    headers: { 'idempotency-key': `${orderId}/PAYMENT_FAIL` },
    body: { event: 'PAYMENT_FAIL', orderId, accountId },
  })
  assert.equal(status, 200)
})

test('the failure of an order is announced even if another account paid for the order', async () => {
  const [accountId, payer, orderId] = [newId(), newId(), newId()]
  const paid = { event: 'ORDER_PAID', orderId, accountId: payer }
  await sendBare(bus, 'payment', paid, { ce_id: `${orderId}/ORDER_PAID` })
  await passed(payer)
  const failed = { event: 'PAYMENT_FAIL', orderId, accountId }
  await sendBare(bus, 'payment', failed, { ce_id: `${orderId}/PAYMENT_FAIL` })
  const [message] = await awaitMessages(accountId)
  assert.equal(message!.event, 'PAYMENT_FAIL')
})

test('a failure that is announced twice with different reasons is one message', async () => {
  const [accountId, orderId] = [newId(), newId()]
  const notify = (reason: string) =>
    call('POST', '/notification/', {
      headers: { 'idempotency-key': `${orderId}/PAYMENT_FAIL`, 'x-reason': reason },
      body: { event: 'PAYMENT_FAIL', orderId, accountId },
    })
  const answers = [await notify('BILLING_UNREACHABLE'), await notify('NOT_ENOUGH_MONEY')]
  assert.deepEqual(
    answers.map(({ status }) => status),
    [200, 200],
  )
  assert.equal(answers[0]!.body, answers[1]!.body)
  assert.equal((await messagesOf(accountId)).length, 1)
})

describe('an event on the topic payment', () => {
  const accountId = newId()
  const orderId = newId()
  const texts = [
    [{ event: 'DEPOSIT_ACCEPTED', value: 199 }, {}, `DEPOSIT 199 ACCEPTED ON ACCOUNT ${accountId}`],
    [
      { event: 'PAYMENT_FAIL', orderId },
      {},
      `NOT ENOUGH MONEY on account ${accountId} for order ${orderId}`,
    ],
    [
      { event: 'PAYMENT_FAIL', orderId },
      { 'x-reason': 'NOT_ENOUGH_MONEY' },
      `NOT ENOUGH MONEY on account ${accountId} for order ${orderId}`,
    ],
    [{ event: 'ORDER_PAID', orderId }, {}, `ORDER ${orderId} PAID SUCCESSFULLY`],
    [
      { event: 'PAYMENT_REFUNDED', orderId, value: 195.5 },
      {},
      `ORDER ${orderId} REFUNDED: 195.5 ON ACCOUNT ${accountId}`,
    ],
  ] as const

  test('becomes a message with the text of the contract, in order', async () => {
    for (const [body, headers] of texts) {
      await sendBare(bus, 'payment', { ...body, accountId }, headers)
    }
    const messages = await awaitMessages(accountId, texts.length)
    const found = messages.map(({ account, event, text }) => ({ account, event, text }))
    const wanted = texts.map(([{ event }, , text]) => ({ account: accountId, event, text }))
    assert.deepEqual(found, wanted)
    const { id } = messages[0]!
    assert.deepEqual((await call('GET', `/notification/${id}`)).body, messages[0])
  })

  test('is written once, however often it is delivered', async () => {
    const accountId = newId()
    const body = { event: 'ORDER_PAID', orderId: newId(), accountId }
    for (let n = 0; n < 4; n += 1) {
      await sendBare(bus, 'payment', body, { ce_id: `${accountId}/ORDER_PAID` })
    }
    await passed(accountId)
    assert.equal((await messagesOf(accountId)).length, 2)
  })

  test('becomes a dead letter if it cannot be read, and later events are handled', async () => {
    const accountId = newId()
    const value = new TextEncoder().encode('{"event":"ORDER_PAID"}')
    await bus.send([{ topic: 'payment', key: accountId, value, headers: {} }])
    await passed(accountId)
    const letters = await database.query<{ reason: string; value: Uint8Array }>(
      'select reason, value from notification.dead_letter where key = $1',
      [accountId],
    )
    assert.equal(letters.length, 1)
    assert.match(letters[0]!.reason, /ORDER_PAID/)
    assert.deepEqual(letters[0]!.value, value)
  })

  test('from a newer version is counted, and skipped or read without its new fields', async () => {
    const accountId = newId()
    const orderId = newId()
    for (let n = 0; n < 2; n += 1) {
      await sendBare(bus, 'payment', {
        event: 'ORDER_SHIPPED',
        orderId,
        accountId,
        carrier: 'ours',
      })
    }
    await sendBare(bus, 'payment', { event: 'ORDER_PAID', orderId, accountId, carrier: 'ours' })
    const messages = await awaitMessages(accountId)
    assert.deepEqual(
      messages.map(({ text }) => text),
      [`ORDER ${orderId} PAID SUCCESSFULLY`],
    )
    const letters = await database.query('select from notification.dead_letter where key = $1', [
      accountId,
    ])
    assert.equal(letters.length, 0)
    const { body } = await parts.telemetry.scrape()
    const labels = 'topic="payment",service="notification"'
    assert.ok(body.includes(`trifold_consumer_unknown_events_total{${labels}} 2`))
    assert.ok(body.includes(`trifold_consumer_unknown_fields_total{${labels}} 1`))
  })

  test('gets a later time than the event before, even if two hundred arrive at once', async () => {
    const accountId = newId()
    const events = Array.from({ length: 200 }, (_, n) => ({
      topic: 'payment',
      key: accountId,
      value: new TextEncoder().encode(
        JSON.stringify({ event: 'DEPOSIT_ACCEPTED', accountId, value: n + 1 }),
      ),
      headers: {},
    }))
    await Promise.all([
      bus.send(events.slice(0, 150)),
      ...events.slice(150).map((event) => bus.send([event])),
    ])
    const messages = await awaitMessages(accountId, 200)
    for (const [index, { created }] of messages.entries()) {
      if (index > 0) assert.ok(created > messages[index - 1]!.created)
    }
    assert.deepEqual(
      messages.map(({ text }) => text.split(' ')[1]),
      events.map((_, n) => String(n + 1)),
    )
  })
})

describe('a call', () => {
  const notify = (body: object, key?: string, headers: Record<string, string> = {}) =>
    call('POST', '/notification/', {
      body,
      headers: { ...(key && { 'idempotency-key': key }), ...headers },
    })

  test('writes a message as an event does, and responds with its id', async () => {
    const [accountId, orderId] = [newId(), newId()]
    const { status, body: id } = await notify({ event: 'PAYMENT_FAIL', orderId, accountId })
    assert.equal(status, 200)
    const [message] = await messagesOf(accountId)
    assert.equal(message?.id, id)
    assert.equal(message?.text, `NOT ENOUGH MONEY on account ${accountId} for order ${orderId}`)
  })

  test('and the event with its key as the id are written as one message', async () => {
    const [accountId, orderId] = [newId(), newId()]
    const body = { event: 'ORDER_PAID', orderId, accountId }
    const key = `${orderId}/ORDER_PAID`
    const answers = await Promise.all([
      ...Array.from({ length: 10 }, () => notify(body, key)),
      ...Array.from({ length: 5 }, () => sendBare(bus, 'payment', body, { ce_id: key })),
      ...Array.from({ length: 10 }, () => notify(body, key)),
    ])
    await passed(accountId)
    const [first, ...more] = await messagesOf(accountId)
    assert.equal(more.length, 1)
    const ids = answers.flatMap((answer) => (answer ? [answer.body] : []))
    assert.deepEqual([...new Set(ids)], [first?.id])
  })

  test('cannot suppress the message of an event by using its id as the key', async () => {
    const accountId = newId()
    for (const forged of [
      { orderId: newId() },
      { accountId: newId() },
      { event: 'PAYMENT_REFUNDED', value: 1 },
    ]) {
      const body = { event: 'ORDER_PAID', orderId: newId(), accountId }
      const key = `${body.orderId}/ORDER_PAID`
      assert.equal((await notify({ ...body, ...forged }, key)).status, 200)
      for (let n = 0; n < 2; n += 1) await sendBare(bus, 'payment', body, { ce_id: key })
      await passed(accountId)
      const texts = (await messagesOf(accountId)).map(({ text }) => text)
      const expected = `ORDER ${body.orderId} PAID SUCCESSFULLY`
      assert.equal(texts.filter((text) => text === expected).length, 1)
    }
  })

  test('gets its own message, once, if its key was used for another account', async () => {
    const key = newId()
    const body = { event: 'ORDER_PAID', orderId: newId(), accountId: newId() }
    const other = { ...body, accountId: newId() }
    const first = await notify(body, key)
    const answers = [await notify(other, key), await notify(other, key)]
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200])
    assert.equal(answers[0]?.body, answers[1]?.body)
    assert.notEqual(answers[0]?.body, first.body)
    assert.equal((await messagesOf(other.accountId)).length, 1)
  })

  test('about a failed payment and the event with another reason are one message', async () => {
    const [accountId, orderId] = [newId(), newId()]
    const body = { event: 'PAYMENT_FAIL', orderId, accountId }
    const key = `${orderId}/PAYMENT_FAIL`
    await notify(body, key, { 'x-reason': 'BILLING_UNREACHABLE' })
    await sendBare(bus, 'payment', body, { ce_id: key, 'x-reason': 'NOT_ENOUGH_MONEY' })
    await passed(accountId)
    assert.equal((await messagesOf(accountId)).length, 2)
  })

  test('is written each time it arrives if it has no key', async () => {
    const body = { event: 'ORDER_PAID', orderId: newId(), accountId: newId() }
    await Promise.all([notify(body), notify(body)])
    assert.equal((await messagesOf(body.accountId)).length, 2)
  })

  test('is rejected if its key was used for a different call', async () => {
    const accountId = newId()
    const body = { event: 'ORDER_PAID', orderId: newId(), accountId }
    const key = newId()
    await notify(body, key)
    for (const other of [{ orderId: newId() }, { event: 'PAYMENT_FAIL' }]) {
      const { status, body: problem } = await notify({ ...body, ...other }, key)
      assert.deepEqual([status, problem.code], [422, 'IDEMPOTENCY_KEY_REUSED'])
    }
    assert.equal((await messagesOf(accountId)).length, 1)
  })

  test('is rejected with a problem that names the missing field', async () => {
    const accountId = newId()
    const cases = [
      [{ event: 'ORDER_PAID', accountId }, 'body/orderId'],
      [{ event: 'DEPOSIT_ACCEPTED', accountId }, 'body/value'],
      [{ event: 'DEPOSIT_ACCEPTED', accountId, value: 0.001 }, 'body/value'],
      [{ event: 'ORDER_CREATED', accountId }, 'body/event'],
      [{ event: 'ORDER_PAID', accountId, orderId: newId(), text: 'x' }, 'body/text'],
    ] as const
    for (const [body, field] of cases) {
      const { status, body: problem } = await notify(body)
      assert.deepEqual([status, problem.field], [400, field])
    }
  })
})

describe('letters', () => {
  const lettersTo = async (email: string) => {
    const names = await readdir(join(maildir, 'new')).catch(() => [])
    const texts = await Promise.all(
      names.map((name) => readFile(join(maildir, 'new', name), 'utf8')),
    )
    return texts.filter((text) => text.includes(`To: ${email}`))
  }

  test('are sent to accounts with a contact, one for each message', async () => {
    const accountId = newId()
    const email = `${accountId.slice(0, 8)}@example.org`
    const contact = `/notification/contact/${accountId}`
    await sendBare(bus, 'payment', { event: 'DEPOSIT_ACCEPTED', accountId, value: 1 })
    await awaitMessages(accountId)
    assert.equal((await call('GET', contact)).status, 404)
    assert.deepEqual((await call('PUT', contact, { body: { email } })).body, { email })
    assert.deepEqual((await call('GET', contact)).body, { email })
    const body = { event: 'ORDER_PAID', orderId: newId(), accountId }
    for (let n = 0; n < 3; n += 1) await sendBare(bus, 'payment', body, { ce_id: newId() + n })
    for (let n = 0; n < 3; n += 1) await sendBare(bus, 'payment', body, { ce_id: accountId })
    await until(async () => (await lettersTo(email)).length === 4)
    const [, second] = await messagesOf(accountId)
    const ids = (await lettersTo(email)).map((text) => /Message-ID: <(.*)@trifold>/.exec(text)?.[1])
    assert.ok(ids.includes(second?.id))
    assert.equal((await call('DELETE', contact)).body, accountId)
    assert.equal((await call('DELETE', contact)).status, 404)
    await passed(accountId)
    const rows = await database.query('select from notification.outbox')
    assert.equal(rows.length, 0)
    assert.equal((await lettersTo(email)).length, 4)
  })
})

describe('limits and retention', () => {
  const contactOf = (accountId: string) => `/notification/contact/${accountId}`
  const put = (accountId: string, email: string) =>
    call('PUT', contactOf(accountId), { body: { email } })
  const lettersTo = async (email: string) => {
    const names = await readdir(join(maildir, 'new')).catch(() => [])
    const texts = await Promise.all(
      names.map((name) => readFile(join(maildir, 'new', name), 'utf8')),
    )
    return texts.filter((text) => text.toLowerCase().includes(`to: ${email}`))
  }
  const emptied = async () =>
    until(async () => (await database.query('select from notification.outbox')).length === 0)

  test('an address gets a limited number of letters an hour, and all messages over HTTP', async () => {
    const email = `${newId()}@example.org`
    const accounts = [newId(), newId()]
    await put(accounts[0]!, email)
    await put(accounts[1]!, email.toUpperCase())
    for (let n = 1; n <= 10; n += 1) {
      for (const accountId of accounts) {
        await sendBare(bus, 'payment', { event: 'DEPOSIT_ACCEPTED', accountId, value: 0.01 * n })
      }
    }
    for (const accountId of accounts) await awaitMessages(accountId, 10)
    await emptied()
    assert.equal((await lettersTo(email)).length, LETTERS_PER_HOUR)
    const { body } = await parts.telemetry.scrape()
    assert.match(body, /trifold_letters_suppressed_total\{service="notification"\} 15/)
    await database.query(
      `update notification.letter_share set hour = hour - interval '1 hour' where email = $1`,
      [email],
    )
    const accountId = accounts[0]!
    await sendBare(bus, 'payment', { event: 'DEPOSIT_ACCEPTED', accountId, value: 1 })
    await until(async () => (await lettersTo(email)).length === LETTERS_PER_HOUR + 1)
  })

  test('the data of an account is removed on request, and its events are still deduplicated', async () => {
    const accountId = newId()
    const email = `${accountId}@example.org`
    await put(accountId, email)
    const body = { event: 'ORDER_PAID', orderId: newId(), accountId }
    await sendBare(bus, 'payment', body, { ce_id: `${body.orderId}/ORDER_PAID` })
    await awaitMessages(accountId)
    await emptied()
    await database.query(
      `insert into notification.dead_letter
         (id, source, topic, partition, "offset", key, headers, code, reason, created)
       values ($1, 'outbox', 'letter:' || $2, 0, 1, $3, '{}', 'UNDELIVERABLE', '550', now())`,
      [newId(), email, accountId],
    )
    const path = `/notification/account/${accountId}`
    for (let n = 0; n < 2; n += 1) {
      const { status, body } = await call('DELETE', path)
      assert.deepEqual([status, body], [200, accountId])
    }
    assert.deepEqual(await messagesOf(accountId), [])
    assert.equal((await call('GET', contactOf(accountId))).status, 404)
    const kept = await database.query(
      'select event_id, text from notification.message where account_id = $1',
      [accountId],
    )
    assert.deepEqual(kept, [{ event_id: `${body.orderId}/ORDER_PAID`, text: '' }])
    const letters = await database.query('select from notification.dead_letter where key = $1', [
      accountId,
    ])
    assert.equal(letters.length, 0)
    await sendBare(bus, 'payment', body, { ce_id: `${body.orderId}/ORDER_PAID` })
    await passed(accountId)
    assert.equal((await messagesOf(accountId)).length, 1)
  })

  test('messages that are older than ninety days lose their texts, but keep their rows', async () => {
    const [old, young] = [newId(), newId()]
    for (const accountId of [old, young]) {
      await sendBare(bus, 'payment', { event: 'DEPOSIT_ACCEPTED', accountId, value: 1 })
      await awaitMessages(accountId)
    }
    await database.query(
      `update notification.message set created = created - interval '91 days'
       where account_id = $1`,
      [old],
    )
    await expireTexts(database, 0n)
    assert.deepEqual(await messagesOf(old), [])
    assert.equal((await messagesOf(young)).length, 1)
    const rows = await database.query(
      'select text from notification.message where account_id = $1',
      [old],
    )
    assert.deepEqual(rows, [{ text: '' }])
  })
})

describe('all messages', () => {
  test('are paged, oldest first', async () => {
    const accountId = newId()
    for (let n = 1; n <= 5; n += 1) {
      await sendBare(bus, 'payment', { event: 'DEPOSIT_ACCEPTED', accountId, value: n })
    }
    const all = await awaitMessages(accountId, 5)
    const paged: Message[] = []
    let query: string | undefined = '?limit=2'
    while (query !== undefined) {
      const path = `/notification/account/${accountId}${query}`
      const { body, headers }: Awaited<ReturnType<typeof call>> = await call('GET', path)
      paged.push(...body)
      const cursor = headers['x-next-cursor']
      query = cursor === undefined ? undefined : `?limit=2&cursor=${cursor}`
    }
    assert.deepEqual(paged, all)
    const everybody = (await call('GET', '/notification?limit=500')).body as Message[]
    assert.deepEqual(
      everybody.filter(({ account }) => account === accountId),
      all,
    )
  })

  test('are gone after DELETE, and redelivered events do not write them again', async () => {
    const accountId = newId()
    const body = { event: 'ORDER_PAID', orderId: newId(), accountId }
    const key = `${body.orderId}/ORDER_PAID`
    await sendBare(bus, 'payment', body, { ce_id: key })
    const [{ id } = { id: '' }] = await awaitMessages(accountId)
    assert.equal((await call('DELETE', '/notification/')).status, 200)
    assert.deepEqual((await call('GET', '/notification/')).body, [])
    assert.equal((await call('GET', `/notification/${id}`)).status, 404)
    await sendBare(bus, 'payment', body, { ce_id: key })
    await passed(accountId)
    const headers = { 'idempotency-key': key }
    assert.equal((await call('POST', '/notification/', { body, headers })).body, id)
    const texts = (await messagesOf(accountId)).map(({ text }) => text)
    assert.equal(texts.length, 1)
    assert.ok(!texts[0]?.includes(body.orderId))
  })
})
