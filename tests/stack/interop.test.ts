// Long because a foreign program replaces each service in turn.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { InteractionStyle } from '../../contracts/style.ts'
import { type Client, eventually, UNIT_PRICE } from '../e2e/client.ts'
import { BILLING_STORY, liveThrough, PAYMENT_STORY } from '../interop/customer-story.ts'
import {
  compileForeignPrograms,
  type ForeignRecord,
  type ForeignService,
  type Position,
} from '../interop/foreign-service.ts'
import {
  assertCloudEvent,
  assertPlainNumbers,
  bodiesOf,
  deadLetterAt,
  isAt,
  LIMIT_MS,
  messagesAre,
} from '../interop/witnesses.ts'
import { type OwnStack, startOwnStack } from './own-stack.ts'

/**
 * Runs our services, each as a process on Kafka and PostgreSQL, together with a foreign program: a Java client that
 * reads the published bodies strictly and writes JSON without headers.
 */
const newId = () => crypto.randomUUID()
const foreign = await compileForeignPrograms()
after(() => foreign.remove())

describe('with a billing in Java', () => {
  let stack: OwnStack
  let ours: Client
  let billing: ForeignService
  let notification: ForeignService

  before(async () => {
    stack = await startOwnStack({ order: 1, billing: 0, notification: 1 })
    ours = stack.client
    billing = foreign.start(stack.brokers, 'billing')
    notification = foreign.start(stack.brokers, 'notification')
  })
  after(() => end(stack, billing, notification))

  const put = (accountId: string, value: number) =>
    billing.send('billing', accountId, { event: 'DEPOSIT_REQUEST', accountId, value })

  async function place(accountId: string, quantity: number, style: InteractionStyle = 'events') {
    const { status, body } = await ours.order(accountId, { quantity, style })
    assert.equal(status, 201)
    return body
  }

  test('orders are approved, refused and refunded, and each notice is written once', async () => {
    const account = newId()
    await put(account, 199.5)
    const outcome = async (orderId: string) => {
      const { state, reason } = await ours.getOrder(account, orderId, 30)
      return [state, reason]
    }
    const paid = await place(account, 3)
    assert.deepEqual(await outcome(paid), ['APPROVED', null])
    const refused = await place(account, 1)
    assert.deepEqual(await outcome(refused), ['CANCELED', 'NOT_ENOUGH_MONEY'])
    await ours.deleteOrder(account, paid)
    assert.deepEqual(await outcome(paid), ['CANCELED', 'DELETED'])
    const last = await place(account, 3)
    assert.deepEqual(await outcome(last), ['APPROVED', null])

    const texts = [
      `DEPOSIT 199.5 ACCEPTED ON ACCOUNT ${account}`,
      `ORDER ${paid} PAID SUCCESSFULLY`,
      `NOT ENOUGH MONEY on account ${account} for order ${refused}`,
      `ORDER ${paid} REFUNDED: 195 ON ACCOUNT ${account}`,
      `ORDER ${last} PAID SUCCESSFULLY`,
    ]
    await messagesAre(ours, account, texts)
    assert.deepEqual(bodiesOf(billing.records, account), [
      { event: 'DEPOSIT_REQUEST', accountId: account, value: 199.5 },
      { event: 'ORDER_CREATED', orderId: paid, accountId: account, price: 195 },
      { event: 'ORDER_CREATED', orderId: refused, accountId: account, price: 65 },
      { event: 'ORDER_CANCELED', orderId: paid, accountId: account },
      { event: 'ORDER_CREATED', orderId: last, accountId: account, price: 195 },
    ])
    await eventually(async () => {
      assert.deepEqual(bodiesOf(notification.records, account), [
        { event: 'DEPOSIT_ACCEPTED', accountId: account, value: 199.5 },
        { event: 'ORDER_PAID', orderId: paid, accountId: account },
        { event: 'PAYMENT_FAIL', orderId: refused, accountId: account },
        { event: 'PAYMENT_REFUNDED', orderId: paid, accountId: account, value: 195 },
        { event: 'ORDER_PAID', orderId: last, accountId: account },
      ])
    }, LIMIT_MS)
    const written = notification.records.filter(({ key }) => key === account)
    assert.deepEqual(new Set(written.flatMap(({ headers }) => headers)), new Set())
    assert.deepEqual(billing.refusals, [])
  })

  test('concurrent orders spend the available money and no more', async () => {
    const accounts = Array.from({ length: 8 }, newId)
    await Promise.all(accounts.map((account) => put(account, 4 * UNIT_PRICE + 0.01)))
    const placed = accounts.flatMap((account) => Array.from({ length: 6 }, () => account))
    await Promise.all(placed.map((account) => place(account, 1)))
    for (const account of accounts) {
      await eventually(async () => {
        const states = (await ours.orders(account)).map(({ state }) => state).sort()
        const [approved, canceled] = [Array(4).fill('APPROVED'), Array(2).fill('CANCELED')]
        assert.deepEqual(states, [...approved, ...canceled])
        assert.equal((await ours.messages(account)).length, 7)
      }, LIMIT_MS)
    }
  })

  test('a payment result with the wrong account becomes a dead letter, and changes nothing', async () => {
    const [customer, stranger] = [newId(), newId()]
    const orderId = await place(customer, 1)
    assert.equal((await ours.getOrder(customer, orderId, 30)).state, 'CANCELED')
    const body = { event: 'ORDER_PAID', orderId, accountId: stranger }
    const at = await billing.send('payment', stranger, body)
    const letter = await deadLetterAt(ours, 'orders', at)
    assert.match(letter.reason, /does not belong to account/)
    assert.equal((await ours.getOrder(customer, orderId, 0)).state, 'CANCELED')
  })

  test('a payment call finds no billing service, and only hybrid announces the failure on the topic', async () => {
    for (const style of ['hybrid', 'http'] as const) {
      const account = newId()
      const { status, body } = await ours.order(account, { style })
      assert.deepEqual([status, body.code], [503, 'BILLING_UNREACHABLE'])
      const orderId = body.orderId as string
      assert.equal((await ours.getOrder(account, orderId, 0)).reason, 'BILLING_UNREACHABLE')
      if (style === 'http') assert.deepEqual(bodiesOf(notification.records, account), [])
      else {
        await messagesAre(ours, account, [
          `ORDER ${orderId} NOT PAID: billing could not be reached`,
        ])
        const failure = { event: 'PAYMENT_FAIL', orderId, accountId: account }
        await eventually(async () => {
          assert.deepEqual(bodiesOf(notification.records, account), [failure])
        }, LIMIT_MS)
      }
    }
    assert.deepEqual(notification.refusals, [])
  })
})

describe('with an order in Java', () => {
  let stack: OwnStack
  let ours: Client
  let order: ForeignService
  let observer: ForeignService

  before(async () => {
    // Even if the deployment's default style is http, a program that sends messages gets the results on
    // topics.
    const environment = { INTERACTION_STYLE: 'http' }
    stack = await startOwnStack({ order: 0, billing: 1, notification: 1 }, environment)
    ours = stack.client
    order = foreign.start(stack.brokers, 'order')
    observer = foreign.start(stack.brokers, 'observer')
  })
  after(() => end(stack, order, observer))

  const create = (accountId: string, orderId: string, price: string | number) =>
    order.send(
      'billing',
      accountId,
      `{"event":"ORDER_CREATED","orderId":"${orderId}","accountId":"${accountId}","price":${price}}`,
    )
  const cancel = (accountId: string, orderId: string) =>
    order.send('billing', accountId, { event: 'ORDER_CANCELED', orderId, accountId })
  const heard = (accountId: string, bodies: readonly object[]) =>
    eventually(async () => {
      assert.deepEqual(bodiesOf(order.records, accountId), bodies)
    }, LIMIT_MS)

  test('its messages result in payments, ledger entries and notices', async () => {
    const accountId = await ours.createAccount()
    await order.send('billing', accountId, { event: 'DEPOSIT_REQUEST', accountId, value: 300.25 })
    const [whole, cents, trailing, tooMuch] = [newId(), newId(), newId(), newId()]
    await create(accountId, whole, 100)
    await create(accountId, cents, 19.99)
    await create(accountId, trailing, '130.00')
    await create(accountId, tooMuch, 50.27)
    await cancel(accountId, trailing)
    const about = (event: string, orderId: string) => ({ event, orderId, accountId })
    await heard(accountId, [
      { event: 'DEPOSIT_ACCEPTED', accountId, value: 300.25 },
      about('ORDER_PAID', whole),
      about('ORDER_PAID', cents),
      about('ORDER_PAID', trailing),
      about('PAYMENT_FAIL', tooMuch),
      { ...about('PAYMENT_REFUNDED', trailing), value: 130 },
    ])
    const payment = async (orderId: string) => {
      const { state, amount, reason } = await ours.payment(orderId)
      return [state, amount, reason]
    }
    assert.deepEqual(await payment(whole), ['PAID', 100, null])
    assert.deepEqual(await payment(cents), ['PAID', 19.99, null])
    assert.deepEqual(await payment(trailing), ['REFUNDED', 130, null])
    assert.deepEqual(await payment(tooMuch), ['REFUSED', 50.27, 'NOT_ENOUGH_MONEY'])
    assert.equal(await ours.balance(accountId), 180.26)
    const entries = await ours.entries(accountId)
    assert.deepEqual(
      entries.map(({ amount, orderId }) => [amount, orderId]).sort(),
      [
        [300.25, null],
        [-100, whole],
        [-19.99, cents],
        [-130, trailing],
        [130, trailing],
      ].sort(),
    )
    await messagesAre(ours, accountId, [
      `DEPOSIT 300.25 ACCEPTED ON ACCOUNT ${accountId}`,
      `ORDER ${whole} PAID SUCCESSFULLY`,
      `ORDER ${cents} PAID SUCCESSFULLY`,
      `ORDER ${trailing} PAID SUCCESSFULLY`,
      `NOT ENOUGH MONEY on account ${accountId} for order ${tooMuch}`,
      `ORDER ${trailing} REFUNDED: 130 ON ACCOUNT ${accountId}`,
    ])
  })

  test('a message that it sends twice changes nothing; the reply is the same event again', async () => {
    const accountId = await ours.fundedAccount(100)
    const [orderId, canceled] = [newId(), newId()]
    const [created, fail] = [{ event: 'ORDER_PAID' }, { event: 'PAYMENT_FAIL' }]
    await create(accountId, orderId, 60)
    await create(accountId, orderId, 60)
    await cancel(accountId, canceled)
    await cancel(accountId, canceled)
    await create(accountId, canceled, 10)
    await heard(accountId, [
      { ...created, orderId, accountId },
      { ...fail, orderId: canceled, accountId },
    ])
    const paidId = `${orderId}/ORDER_PAID`
    const failId = `${canceled}/PAYMENT_FAIL`
    // Every repeated request gets a reply, including a cancellation.
    await eventually(async () => {
      const answers = order.records.filter(({ key }) => key === accountId)
      const ids = answers.map((record) => new Map(record.headers).get('ce_id'))
      assert.deepEqual(ids, [paidId, paidId, failId, failId, failId])
    }, LIMIT_MS)
    assert.equal(await ours.balance(accountId), 40)
    assert.deepEqual(
      (await ours.entries(accountId)).map(({ amount }) => amount).sort((a, b) => a - b),
      [-60, 100],
    )
    await messagesAre(ours, accountId, [
      `DEPOSIT 100 ACCEPTED ON ACCOUNT ${accountId}`,
      `ORDER ${orderId} PAID SUCCESSFULLY`,
      `ORDER ${canceled} NOT PAID: it was canceled`,
    ])
  })

  test('a message that no version can read becomes a dead letter, and the partition moves on', async () => {
    const accountId = await ours.fundedAccount(100)
    const body = { event: 'ORDER_CREATED', orderId: newId(), accountId, price: 10 }
    const unreadable: Record<string, string | object> = {
      'is cut off': JSON.stringify(body).slice(0, -1),
      'lacks a field': { ...body, orderId: undefined },
      'has null for a field': { ...body, orderId: null },
      'has a price as text': { ...body, price: '10' },
      'has a number for an id': { ...body, orderId: 10 },
      'has an invalid id': { ...body, orderId: 'my order' },
      'has a third decimal': { ...body, price: 10.005 },
      'costs nothing': { ...body, price: 0 },
      'is an event of another topic': { event: 'ORDER_PAID', orderId: newId(), accountId },
      'is a list': [body],
      'is nothing': 'null',
    }
    const sent: [string, Position][] = []
    for (const [flaw, value] of Object.entries(unreadable)) {
      sent.push([flaw, await order.send('billing', accountId, value)])
    }
    const good = newId()
    await create(accountId, good, 10)
    await heard(accountId, [{ event: 'ORDER_PAID', orderId: good, accountId }])
    for (const [flaw, at] of sent) {
      assert.equal((await deadLetterAt(ours, 'billing', at)).code, 'UNREADABLE', flaw)
      await eventually(async () => assert.ok(observer.refusals.some(isAt(at)), flaw), LIMIT_MS)
      assert.ok(!observer.records.some(isAt(at)), flaw)
    }
    assert.equal(await ours.balance(accountId), 90)
  })

  test('a key has the same partition in both clients and on every topic', async () => {
    const accounts = await Promise.all(Array.from({ length: 20 }, () => ours.createAccount()))
    for (const accountId of accounts) {
      await ours.deposit(accountId, 7, 'events')
      await order.send('billing', accountId, { event: 'DEPOSIT_REQUEST', accountId, value: 7 })
      await order.send('payment', accountId, { event: 'DEPOSIT_ACCEPTED', accountId, value: 7 })
    }
    const partitions = new Set<number>()
    for (const accountId of accounts) {
      await eventually(async () => {
        const records = observer.records.filter(({ key }) => key === accountId)
        const writer = ({ headers }: ForeignRecord) => (headers.length === 0 ? 'theirs' : 'ours')
        const written = records.map((record) => `${record.topic} ${writer(record)}`).sort()
        const [toBilling, toPayment] = [['billing ours', 'billing theirs'], ['payment theirs']]
        // Our billing service replies to both requests.
        assert.deepEqual(written, [...toBilling, 'payment ours', 'payment ours', ...toPayment])
        assert.equal(new Set(records.map(({ partition }) => partition)).size, 1)
        partitions.add(records[0]!.partition)
      }, LIMIT_MS)
    }
    assert.ok(partitions.size > 1)
  })
})

describe('with a notification and an observer in Java, together with all our services', () => {
  let stack: OwnStack
  let ours: Client
  let notification: ForeignService
  let observer: ForeignService
  const styles = ['http', 'hybrid', 'events'] as const
  const accounts = new Map<(typeof styles)[number], string>()

  before(async () => {
    stack = await startOwnStack({ order: 1, billing: 1, notification: 1 })
    ours = stack.client
    notification = foreign.start(stack.brokers, 'notification')
    observer = foreign.start(stack.brokers, 'observer')
    for (const style of styles) {
      accounts.set(style, await liveThrough(ours, style))
    }
  })
  after(() => end(stack, notification, observer))

  const eventsFor = (account: string) =>
    bodiesOf(notification.records, account).map(({ event }) => event)

  test('the topics carry the messages that the style requires, and strict readers accept all of them', async () => {
    const expected = {
      http: { billing: [], payment: [] },
      hybrid: { billing: [], payment: PAYMENT_STORY },
      events: { billing: BILLING_STORY, payment: PAYMENT_STORY },
    }
    for (const [style, account] of accounts) {
      for (const topic of ['billing', 'payment'] as const) {
        await eventually(async () => {
          const records = observer.records.filter((record) => record.topic === topic)
          const events = bodiesOf(records, account).map(({ event }) => event)
          assert.deepEqual(events, expected[style][topic], `${style} ${topic}`)
        }, LIMIT_MS)
      }
    }
    assert.deepEqual(observer.refusals, [])
    assert.deepEqual(notification.refusals, [])
  })

  test('the foreign notification service reads the events for which ours writes notices', async () => {
    for (const [style, account] of accounts) {
      await eventually(async () => {
        const messages = await ours.messages(account)
        const events = messages.map(({ event }) => event)
        assert.deepEqual(events.sort(), [...PAYMENT_STORY].sort())
        assert.deepEqual(eventsFor(account), style === 'http' ? [] : PAYMENT_STORY)
      }, LIMIT_MS)
    }
  })

  test('every message has plain numbers and CloudEvents headers', async () => {
    const { records } = await foreign.readBalances(stack.brokers)
    const all = [...observer.records, ...records]
    const topics = new Set(all.map(({ topic }) => topic))
    assert.deepEqual([...topics].sort(), ['balance', 'billing', 'payment'])
    for (const record of all) {
      assertPlainNumbers(record.value)
      assertCloudEvent(record)
    }
  })

  test('the end of the balance stream agrees with the billing service about each account', async () => {
    const { last, cleanupPolicy } = await eventually(async () => {
      const read = await foreign.readBalances(stack.brokers)
      for (const accountId of accounts.values()) {
        const { length } = await ours.entries(accountId)
        assert.equal(read.last.find((one) => one.accountId === accountId)?.version, length)
      }
      return read
    }, LIMIT_MS)
    assert.equal(cleanupPolicy, 'compact')
    assert.deepEqual(last.map(({ accountId }) => accountId).sort(), [...accounts.values()].sort())
    for (const { accountId, balance, updated } of last) {
      const account = await ours.read<object>(`/billing/account/${accountId}`)
      assert.deepEqual(
        { ...account, created: '' },
        { id: accountId, balance, created: '', updated },
      )
    }
  })
})

/** Closes the stack even if the foreign programs failed. Programs that never started are undefined. */
async function end(stack: OwnStack | undefined, ...beside: (ForeignService | undefined)[]) {
  try {
    await Promise.all(beside.map((one) => one?.stop()))
  } finally {
    await stack?.close()
  }
}
