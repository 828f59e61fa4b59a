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
import { type Attempt, addressOf, type Deed, type Wish } from '../simulation/world/customers.ts'
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

/** Real customers of a program that nothing happens to. */
const SHOPPING_DEEDS = 80
const file = join(folder, 'history.jsonl')
const history = openHistory(file)
const script = await actOut()
for (const deed of script) for (const attempt of deed.attempts) history.note(deed, attempt)
const customers = startCustomers({
  ...{ url: trifold.url, seed: 5, style: 'mixed' },
  onAttempt: history.note,
})
await eventually(async () => assert.ok(customers.deeds.length >= SHOPPING_DEEDS), 60_000)
await customers.stop()
await customers.close()
await history.close()
const deeds = await readHistory(file)

const bus = await trifold.openBus()
async function found(
  changed: readonly Deed[],
  { db = database as Queryable, letters = undefined as readonly Letter[] | undefined } = {},
) {
  const { findings } = await check({
    deeds: changed,
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
  assert.deepEqual(await found(deeds), [])
})
await bus.close()

/** One of each kind that chance might leave out, before all others. */
async function actOut(): Promise<Deed[]> {
  const done: Deed[] = []
  async function act<Body>(
    wish: Wish,
    path: string,
    { style = 'http' as InteractionStyle, json = undefined as unknown, method = 'POST' } = {},
  ): Promise<Body> {
    const key = `script-${done.length}`
    const sentMs = Date.now()
    const { status, body } = await trifold.call<Body>(method, path, { style, key, json })
    const attempts = [{ sentMs, answeredMs: Date.now(), answer: { status, body } }]
    done.push({ wish, style, key, attempts })
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
  const looking = { method: 'GET' }
  await act({ kind: 'look at balance', accountId }, `/billing/account/${accountId}`, looking)
  return done
}

/** The first deed that answers the description; the test fails where there is none. */
function deedOf<Kind extends Wish['kind']>(
  kind: Kind,
  isMeant: (deed: Deed & { wish: Wish & { kind: Kind } }) => boolean = () => true,
): Deed & { readonly wish: Wish & { kind: Kind } } {
  const own = deeds.filter(({ wish }) => wish.kind === kind) as ReturnType<typeof deedOf<Kind>>[]
  const deed = own.find((one) => isMeant(one))
  assert.ok(deed, `nobody's wish was such a ${kind}`)
  return deed
}

const answerOf = ({ attempts }: Deed) => attempts.find(({ answer }) => answer)?.answer
const isStatus = (status: number) => (deed: Deed) => answerOf(deed)?.status === status
const hasKey = ({ key }: Deed) => key !== undefined

function replaced(deed: Deed, change: Partial<Deed>): Deed[] {
  return deeds.map((one) => (one === deed ? { ...deed, ...change } : one))
}

function answered(deed: Deed, status: number, body: unknown): Deed[] {
  const attempts = deed.attempts.map((one): Attempt => ({ ...one, answer: { status, body } }))
  return replaced(deed, { attempts })
}

test('a history of what has happened is clean, and kept whole by its file', async () => {
  const lines = (some: readonly Deed[]) => some.map((deed) => JSON.stringify(sorted(deed))).sort()
  assert.deepEqual(lines(deeds), lines([...script, ...customers.deeds]))
  assert.deepEqual(await found(deeds), [])
})

/** Members in one sequence. */
const sorted = ({ wish, style, key, attempts }: Deed) => ({
  ...{ wish, style, key },
  attempts: attempts.map(({ sentMs, answeredMs, answer }) => ({ sentMs, answeredMs, answer })),
})

/** An order that was approved, and that nobody gives back. */
const approved = deedOf('order', ({ key }) => script.some((deed) => deed.key === key))
const approvedId = answerOf(approved)!.body as string

/** Somebody wants something of that order, and is answered so. */
function besides(kind: 'delete' | 'void' | 'look at order' | 'pry', status: number, body: unknown) {
  const { accountId } = approved.wish
  const wish: Wish = { kind, accountId, orderId: approvedId }
  const attempts: Attempt[] = [{ sentMs: 0, answeredMs: 1, answer: { status, body } }]
  return [...deeds, { wish, style: 'http', attempts } satisfies Deed]
}

describe('a doctored history: an acknowledged request without its effect', () => {
  const nobody = crypto.randomUUID()
  reddens('an account', () => answered(deedOf('open', isStatus(200)), 200, nobody))
  reddens('an order', () => answered(deedOf('order', isStatus(201)), 201, nobody))
  reddens('an order with other pieces', () => {
    const order = deedOf('order', isStatus(201))
    return replaced(order, { wish: { ...order.wish, quantity: 99 } })
  })
  reddens('an order that was refused and stands', () =>
    answered(approved, 402, { code: 'NOT_ENOUGH_MONEY', orderId: approvedId }),
  )
  reddens('a deposit', () => {
    const deposit = deedOf('deposit', isStatus(200))
    return replaced(deposit, { wish: { ...deposit.wish, amountMinor: 12_345_678 } })
  })
  reddens('a payment', () => answered(deedOf('pay', isStatus(200)), 200, nobody))
  reddens('a deletion', () => besides('delete', 200, approvedId))
  reddens('a void', () => besides('void', 200, { state: 'REFUNDED' }))
})

describe('a doctored history: an effect that nobody has asked for', () => {
  reddens('accounts', () => deeds.filter(({ wish }) => wish.kind !== 'open'))
  reddens('a deposit', () => without(deedOf('deposit', isStatus(200))))
  reddens('an order', () => without(deedOf('order', isStatus(201))))
  reddens('a payment', () => without(deedOf('pay', isStatus(200))))
  const without = (deed: Deed) => deeds.filter((one) => one !== deed)
})

describe('a doctored history: what customers were told', () => {
  reddens('two answers to one key', () => {
    const order = deedOf('order', (one) => hasKey(one) && isStatus(201)(one))
    const other = deedOf('order', (one) => one !== order && isStatus(201)(one))
    return replaced(order, { attempts: [...order.attempts, ...other.attempts] })
  })
  reddens('a fault of our own', () => {
    const order = deedOf('order', isStatus(201))
    const failed = { ...order.attempts[0]!, answer: { status: 500, body: { code: 'INTERNAL' } } }
    return replaced(order, { attempts: [failed, ...order.attempts] })
  })
  reddens('no answer at all, to a key', () => {
    const contact = deedOf('contact')
    return replaced(contact, { key: 'unanswered', attempts: [{ sentMs: 0, answeredMs: 1 }] })
  })
  reddens('a balance that never was', () => {
    const look = deedOf('look at balance', isStatus(200))
    return answered(look, 200, { ...(answerOf(look)!.body as object), balance: 0.01 })
  })
  reddens('a balance that a deposit did not leave', () =>
    answered(
      deedOf('deposit', (one) => isStatus(200)(one) && hasKey(one) && one.style === 'http'),
      ...([200, 0.01] as const),
    ),
  )
  reddens('a balance that no requests lead to', () =>
    answered(
      deedOf('deposit', (one) => isStatus(200)(one) && one.style === 'events'),
      200,
      0.01,
    ),
  )
  reddens('an outcome that the order does not have', () =>
    besides('look at order', 200, { state: 'CANCELED' }),
  )
  reddens("somebody else's order", () => besides('pry', 200, {}))
})

describe('doctored books', () => {
  spoilt('a lost order', 'history', 'delete from orders.orders where id = $1', approvedId)
  spoilt('a lost payment', 'I3', 'delete from billing.payment where order_id = $1', approvedId)
  spoilt(
    'a lost message',
    'I5',
    'delete from notification.message where event_id = $1',
    `${approvedId}/ORDER_PAID`,
  )
  spoilt(
    'money from nowhere',
    'I1',
    'update billing.account set balance_minor = balance_minor + 1 where id = $1',
    approved.wish.accountId,
  )

  test('a letter that was never sent, and one that was sent twice', async () => {
    const letters = await lettersIn(trifold.maildir)
    assert.ok(letters.length > 1)
    const sentences = async (changed: readonly Letter[]) =>
      (await found(deeds, { letters: changed })).map(({ sentence }) => sentence).join('\n')
    assert.match(await sentences([...letters, letters[0]!]), /was found 2 times/)
    // Those of the first moments may be without one: their customer had just given his address.
    const missing = await sentences(letters.slice(0, 1))
    assert.match(missing, /was never written as a letter/)
  })
})

function reddens(what: string, doctored: () => readonly Deed[]): void {
  test(what, async () => {
    assert.notDeepEqual(await found(doctored()), [])
  })
}

/** A statement on the books, which is then taken back. */
function spoilt(what: string, invariant: string, text: string, param: string): void {
  test(`${what} breaks ${invariant}`, async () => {
    const undo = new Error('taken back')
    await assert.rejects(
      database.transaction(async (tx) => {
        await tx.query(text, [param])
        const named = (await found(deeds, { db: tx })).map((finding) => finding.invariant)
        assert.ok(named.includes(invariant), named.join())
        throw undo
      }),
      undo,
    )
  })
}
