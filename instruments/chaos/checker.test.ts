import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import type { Letter } from '../../apps/audit/findings.ts'
import { lettersIn } from '../../apps/audit/maildir.ts'
import type { InteractionStyle } from '../../contracts/style.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { eventually } from '../../tests/e2e/client.ts'
import { startProgram } from '../../tests/e2e/program.ts'
import { wholeLog } from '../../tests/e2e/whole-log.ts'
import {
  type Attempt,
  addressOf,
  type Intent,
  type Operation,
} from '../simulation/world/customers.ts'
import { check } from './checker.ts'
import { startCustomers } from './customers.ts'
import { SETTINGS } from './faults/fragile-stack.ts'
import { openHistory, readHistory } from './history.ts'

const trifold = await startProgram()
const folder = await mkdtemp(join(tmpdir(), 'trifold-checker-'))
after(async () => {
  await trifold.close()
  await rm(folder, { recursive: true, force: true })
})
const database = trifold.databases.orders

/** The history of the customers of a chaos run, recorded on a program without faults. */
const SHOPPING_OPERATIONS = 80
const file = join(folder, 'history.jsonl')
const history = openHistory(file)
const script = await actOut()
for (const operation of script)
  for (const attempt of operation.attempts) history.note(operation, attempt)
const customers = startCustomers({
  url: trifold.url,
  seed: 5,
  style: 'mixed',
  onAttempt: history.note,
})
await eventually(async () => assert.ok(customers.operations.length >= SHOPPING_OPERATIONS), 60_000)
await customers.stop()
await customers.close()
await history.close()
const operations = await readHistory(file)

const bus = await trifold.openBus()
async function found(
  changed: readonly Operation[],
  { db = database as Queryable, letters = undefined as readonly Letter[] | undefined } = {},
) {
  const { findings } = await check({
    operations: changed,
    databases: { orders: db, billing: db, notification: db },
    topics,
    letters: letters ?? (await lettersIn(trifold.maildir)),
    times: { settings: SETTINGS, healedMs: Date.now(), faults: [] },
  })
  return findings
}

let topics = await wholeLog(bus)
await eventually(async () => {
  topics = await wholeLog(bus)
  assert.deepEqual(await found(operations), [])
})
await bus.close()

/**
 * Makes each kind of request once, because the random customers, who come later, may not make all of them.
 */
async function actOut(): Promise<Operation[]> {
  const done: Operation[] = []
  async function act<Body>(
    intent: Intent,
    path: string,
    { style = 'http' as InteractionStyle, json = undefined as unknown, method = 'POST' } = {},
  ): Promise<Body> {
    const key = `script-${done.length}`
    const sentMs = Date.now()
    const { status, body } = await trifold.call<Body>(method, path, { style, key, json })
    const attempts = [{ sentMs, doneMs: Date.now(), response: { status, body } }]
    done.push({ intent, style, key, attempts })
    return body
  }
  const accountId = await act<string>({ kind: 'open' }, '/billing/account/create')
  const contact = `/notification/contact/${accountId}`
  const json = { email: addressOf(accountId) }
  await act({ kind: 'contact', accountId }, contact, { json, method: 'PUT' })
  const amounts = [
    [500_01, 'http'],
    [1_02, 'events'],
  ] as const
  for (const [amountMinor, style] of amounts) {
    const path = `/billing/account/${accountId}?amount=${amountMinor / 100}`
    await act({ kind: 'deposit', accountId, amountMinor }, path, { style })
  }
  const ordering = { json: { productQuantity: 2 } }
  await act({ kind: 'order', accountId, quantity: 2 }, `/orders?profileId=${accountId}`, ordering)
  const paying = { json: { accountId, amount: 3.03 } }
  await act({ kind: 'pay', accountId, amountMinor: 303 }, '/billing/account', paying)
  const reading = { method: 'GET' }
  await act({ kind: 'read balance', accountId }, `/billing/account/${accountId}`, reading)
  return done
}

/** The first operation that matches; the test fails if no operation does. */
function operationOf<Kind extends Intent['kind']>(
  kind: Kind,
  isMeant: (operation: Operation & { intent: Intent & { kind: Kind } }) => boolean = () => true,
): Operation & { readonly intent: Intent & { kind: Kind } } {
  const own = operations.filter(({ intent }) => intent.kind === kind) as ReturnType<
    typeof operationOf<Kind>
  >[]
  const operation = own.find((one) => isMeant(one))
  assert.ok(operation, `no customer made such a request: ${kind}`)
  return operation
}

const responseOf = ({ attempts }: Operation) => attempts.find(({ response }) => response)?.response
const isStatus = (status: number) => (operation: Operation) =>
  responseOf(operation)?.status === status
const hasKey = ({ key }: Operation) => key !== undefined

function replaced(operation: Operation, change: Partial<Operation>): Operation[] {
  return operations.map((one) => (one === operation ? { ...operation, ...change } : one))
}

function withResponse(operation: Operation, status: number, body: unknown): Operation[] {
  const attempts = operation.attempts.map(
    (one): Attempt => ({ ...one, response: { status, body } }),
  )
  return replaced(operation, { attempts })
}

test('a true history has no violations, and the file preserves all of it', async () => {
  const lines = (some: readonly Operation[]) =>
    some.map((operation) => JSON.stringify(sorted(operation))).sort()
  assert.deepEqual(lines(operations), lines([...script, ...customers.operations]))
  assert.deepEqual(await found(operations), [])
})

/** The operation with its members in a fixed order. */
const sorted = ({ intent, style, key, attempts }: Operation) => ({
  intent,
  style,
  key,
  attempts: attempts.map(({ sentMs, doneMs, response }) => ({ sentMs, doneMs, response })),
})

/** An order that was approved and is never canceled. */
const approved = operationOf('order', ({ key }) =>
  script.some((operation) => operation.key === key),
)
const approvedId = responseOf(approved)!.body as string

/** The history with one more request about that order, and the response to it. */
function withRequest(
  kind: 'delete' | 'void' | 'read order' | 'pry',
  status: number,
  body: unknown,
) {
  const { accountId } = approved.intent
  const intent: Intent = { kind, accountId, orderId: approvedId }
  const attempts: Attempt[] = [{ sentMs: 0, doneMs: 1, response: { status, body } }]
  return [...operations, { intent, style: 'http', attempts } satisfies Operation]
}

describe('a doctored history: an acknowledged request without its effect', () => {
  const unknownId = crypto.randomUUID()
  detects('an account', () => withResponse(operationOf('open', isStatus(200)), 200, unknownId))
  detects('an order', () => withResponse(operationOf('order', isStatus(201)), 201, unknownId))
  detects('an order with another quantity', () => {
    const order = operationOf('order', isStatus(201))
    return replaced(order, { intent: { ...order.intent, quantity: 99 } })
  })
  detects('an order that was refused but exists as approved', () =>
    withResponse(approved, 402, { code: 'NOT_ENOUGH_MONEY', orderId: approvedId }),
  )
  detects('a deposit', () => {
    const deposit = operationOf('deposit', isStatus(200))
    return replaced(deposit, { intent: { ...deposit.intent, amountMinor: 12_345_678 } })
  })
  detects('a payment', () => withResponse(operationOf('pay', isStatus(200)), 200, unknownId))
  detects('a deletion', () => withRequest('delete', 200, approvedId))
  detects('a void', () => withRequest('void', 200, { state: 'REFUNDED' }))
})

describe('a doctored history: an effect without a request', () => {
  detects('accounts', () => operations.filter(({ intent }) => intent.kind !== 'open'))
  detects('a deposit', () => without(operationOf('deposit', isStatus(200))))
  detects('an order', () => without(operationOf('order', isStatus(201))))
  detects('a payment', () => without(operationOf('pay', isStatus(200))))
  const without = (operation: Operation) => operations.filter((one) => one !== operation)
})

describe('a doctored history: responses to customers', () => {
  detects('two responses to one key', () => {
    const order = operationOf('order', (one) => hasKey(one) && isStatus(201)(one))
    const other = operationOf('order', (one) => one !== order && isStatus(201)(one))
    return replaced(order, { attempts: [...order.attempts, ...other.attempts] })
  })
  detects('an internal error', () => {
    const order = operationOf('order', isStatus(201))
    const failed = { ...order.attempts[0]!, response: { status: 500, body: { code: 'INTERNAL' } } }
    return replaced(order, { attempts: [failed, ...order.attempts] })
  })
  detects('a key without any response', () => {
    const contact = operationOf('contact')
    return replaced(contact, { key: 'unanswered', attempts: [{ sentMs: 0, doneMs: 1 }] })
  })
  detects('a balance that never was', () => {
    const read = operationOf('read balance', isStatus(200))
    return withResponse(read, 200, { ...(responseOf(read)!.body as object), balance: 0.01 })
  })
  detects('a balance other than the one after the deposit', () =>
    withResponse(
      operationOf('deposit', (one) => isStatus(200)(one) && hasKey(one) && one.style === 'http'),
      ...([200, 0.01] as const),
    ),
  )
  detects('a balance that no sequence of requests explains', () =>
    withResponse(
      operationOf('deposit', (one) => isStatus(200)(one) && one.style === 'events'),
      200,
      0.01,
    ),
  )
  detects('an outcome that the order does not have', () =>
    withRequest('read order', 200, { state: 'CANCELED' }),
  )
  detects("somebody else's order", () => withRequest('pry', 200, {}))
})

describe('doctored tables', () => {
  detectsChange('a lost order', 'history', 'delete from orders.orders where id = $1', approvedId)
  detectsChange(
    'a lost payment',
    'I3',
    'delete from billing.payment where order_id = $1',
    approvedId,
  )
  detectsChange(
    'a lost message',
    'I5',
    'delete from notification.message where event_id = $1',
    `${approvedId}/ORDER_PAID`,
  )
  detectsChange(
    'money from nowhere',
    'I1',
    'update billing.account set balance_minor = balance_minor + 1 where id = $1',
    approved.intent.accountId,
  )

  test('a letter that was never sent, and one that was sent twice', async () => {
    const letters = await lettersIn(trifold.maildir)
    assert.ok(letters.length > 1)
    const sentences = async (changed: readonly Letter[], all = operations) =>
      (await found(all, { letters: changed })).map(({ sentence }) => sentence).join('\n')
    assert.match(await sentences([...letters, letters[0]!]), /was found 2 times/)
    // The check allows for clocks that differ, and every notice may have been written that soon after its
    // contact was set.
    const early = operations.map((one) => ({
      ...one,
      attempts: one.attempts.map((attempt) => ({ ...attempt, doneMs: 0 })),
    }))
    const missing = await sentences(letters.slice(0, 1), early)
    assert.match(missing, /was never sent as a letter/)
  })
})

function detects(what: string, doctored: () => readonly Operation[]): void {
  test(what, async () => {
    assert.notDeepEqual(await found(doctored()), [])
  })
}

/** Changes the tables with a statement that is rolled back after the check. */
function detectsChange(what: string, invariant: string, text: string, param: string): void {
  test(`${what} breaks ${invariant}`, async () => {
    const undo = new Error('rolled back')
    await assert.rejects(
      database.transaction(async (tx) => {
        await tx.query(text, [param])
        const named = (await found(operations, { db: tx })).map((finding) => finding.invariant)
        assert.ok(named.includes(invariant), named.join())
        throw undo
      }),
      undo,
    )
  })
}
