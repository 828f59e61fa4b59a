import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import type { BusMessage } from '../../messaging/bus.ts'
import { eventually } from '../../tests/e2e/client.ts'
import { startProgram } from '../../tests/e2e/program.ts'
import { wholeLog } from '../../tests/e2e/whole-log.ts'
import type { AuditInput } from './findings.ts'
import { audit } from './invariants.ts'

const trifold = await startProgram()
after(() => trifold.close())
const { orders: database } = trifold.databases

const account = await trifold.createAccount()
await trifold.deposit(account, 300, 'events')
await eventually(async () => assert.equal(await trifold.balance(account), 300))
const place = async (quantity: number) => {
  const { body } = await trifold.order(account, { style: 'events', quantity })
  await trifold.getOrder(account, body)
  return body
}
const refunded = await place(1)
await trifold.deleteOrder(account, refunded)
await eventually(async () => assert.equal((await trifold.payment(refunded)).state, 'REFUNDED'))
const refused = await place(1_000)
const paid = await place(2)

const input: AuditInput = {
  orders: database,
  billing: database,
  notification: database,
  bus: database,
  now: Date.now(),
  settled: true,
}
await eventually(async () => assert.deepEqual(await audit(input), []))
const bus = await trifold.openBus()
const log = await wholeLog(bus)
await bus.close()

const violationsOf = (topics: readonly BusMessage[]) => audit({ ...input, topics })
const find = (id: string) => {
  const found = log.find(({ headers }) => headers.ce_id === id)
  assert.ok(found, `${id} is not in the log`)
  return found
}
const withBody = (message: BusMessage, change: object): BusMessage => {
  const body = JSON.parse(new TextDecoder().decode(message.value!))
  return { ...message, value: new TextEncoder().encode(JSON.stringify({ ...body, ...change })) }
}
const replaced = (one: BusMessage, other: BusMessage) =>
  log.map((message) => (message === one ? other : message))
/** Swaps the contents of two messages. */
const exchanged = (one: BusMessage, other: BusMessage) =>
  log.map((message) => {
    if (message !== one && message !== other) return message
    const content = message === one ? other : one
    return { ...message, value: content.value, headers: content.headers }
  })

describe('a log that agrees with the databases', () => {
  test('has no violations, and every part of it is checked', async () => {
    const checked = new Map<string, number>()
    const note = (_: string, count: number, what: string) =>
      checked.set(what, (checked.get(what) ?? 0) + count)
    assert.deepEqual(await audit({ ...input, topics: log }, note), [])
    assert.equal(checked.get('messages of topics'), log.length)
    assert.equal(checked.get('ledger entries against topics'), 4)
  })

  test('has no violations even if all messages were sent twice', async () => {
    const again = log.map((message) => ({ ...message, offset: message.offset + 1_000n }))
    assert.deepEqual(await violationsOf([...log, ...again]), [])
  })
})

describe('a log that disagrees with the databases', () => {
  breaking('a missing outcome', 'I5', () =>
    log.filter((message) => message !== find(`${paid}/ORDER_PAID`)),
  )
  breaking('an outcome without a cause', 'I5', () => {
    const body = { orderId: refused, event: 'ORDER_PAID' }
    const message = withBody(find(`${paid}/ORDER_PAID`), body)
    const ce_id = `${refused}/ORDER_PAID`
    return [...log, { ...message, offset: 1_000n, headers: { ...message.headers, ce_id } }]
  })
  breaking('an order that was never placed', 'I5', () => {
    const orderId = crypto.randomUUID()
    const message = withBody(find(`${paid}/ORDER_CREATED`), { orderId })
    const ce_id = `${orderId}/ORDER_CREATED`
    return [...log, { ...message, offset: 1_000n, headers: { ...message.headers, ce_id } }]
  })
  breaking('a price that is not the price of the order', 'I5', () => {
    const message = find(`${paid}/ORDER_CREATED`)
    return replaced(message, withBody(message, { price: 1 }))
  })
  breaking('a cancellation of an order that is not canceled', 'I5', () => {
    const message = withBody(find(`${refunded}/ORDER_CANCELED`), { orderId: paid })
    const ce_id = `${paid}/ORDER_CANCELED`
    return [...log, { ...message, offset: 1_000n, headers: { ...message.headers, ce_id } }]
  })
  breaking('a request for an unknown deposit', 'I5', () => {
    const message = log.find(({ headers }) => headers.ce_type === 'DEPOSIT_REQUEST')!
    const headers = { ...message.headers, ce_id: crypto.randomUUID() }
    return [...log, { ...message, offset: 1_000n, headers }]
  })
  breaking('two bodies with the same id', 'I5', () => {
    const message = find(`${refunded}/PAYMENT_REFUNDED`)
    return [...log, { ...withBody(message, { value: 1 }), offset: 1_000n }]
  })
  breaking('an unreadable message', 'I5', () => {
    const value = new TextEncoder().encode('{')
    return [...log, { ...log[0]!, offset: 1_000n, value }]
  })
  breaking('a key that is not the account', 'I6', () =>
    replaced(log[0]!, { ...log[0]!, key: crypto.randomUUID() }),
  )
  breaking('announcements in another order than the ledger', 'I6', () =>
    exchanged(find(`${refunded}/ORDER_PAID`), find(`${refunded}/PAYMENT_REFUNDED`)),
  )
  breaking('balances in another order than the ledger', 'I6', () =>
    exchanged(find(`${account}/BALANCE_CHANGED/2`), find(`${account}/BALANCE_CHANGED/3`)),
  )
  breaking('a balance that the account did not have', 'I5', () => {
    const message = find(`${account}/BALANCE_CHANGED/2`)
    return replaced(message, withBody(message, { balance: 1 }))
  })
  breaking('a balance stream that ends before the ledger', 'I5', () =>
    log.filter((message) => message !== find(`${account}/BALANCE_CHANGED/4`)),
  )
  breaking('a balance stream that ends with a copy of an older balance', 'I5', () => [
    ...log,
    { ...find(`${account}/BALANCE_CHANGED/3`), offset: 1_000n },
  ])
})

function breaking(what: string, invariant: string, doctored: () => readonly BusMessage[]): void {
  test(`${what} violates only ${invariant}`, async () => {
    const violations = await violationsOf(doctored())
    const named = [...new Set(violations.map((violation) => violation.invariant))]
    assert.deepEqual(named, [invariant], JSON.stringify(violations, null, 1))
  })
}
