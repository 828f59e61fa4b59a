import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { flowOf, STYLES } from '../../contracts/style.ts'
import { type Answer, eventually, sumOf, UNIT_PRICE } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

const ORDERS = 500
const AFFORDABLE = 250

// In http the notices of one account are sent one after another, which can take longer than the default
// time-out on a busy machine.
const trifold = await startProgram({ CALL_TIMEOUT_MS: '60000' })
after(() => trifold.close())

for (const style of STYLES) {
  test(`${style}: of ${ORDERS} concurrent orders with money for ${AFFORDABLE}, exactly ${AFFORDABLE} are paid`, async () => {
    const account = await trifold.fundedAccount(AFFORDABLE * UNIT_PRICE)
    // On a busy machine the program can be overloaded. After a 429 the order is repeated, because the first
    // request had no effect.
    async function place(): Promise<Answer<string>> {
      const answer = await trifold.order(account, { style })
      if (answer.status !== 429) return answer as Answer<string>
      await pause(1_000 * Number(answer.headers.get('retry-after')))
      return place()
    }
    const placed = await Promise.all(Array.from({ length: ORDERS }, place))
    const accepted = flowOf(style).response === 'id' ? ORDERS : AFFORDABLE
    const refused = placed.filter(({ status }) => status !== 201)
    assert.deepEqual(
      [...new Set(refused.map(({ status }) => status))],
      accepted < ORDERS ? [402] : [],
    )
    assert.equal(placed.length - refused.length, accepted)

    const orders = await eventually(async () => {
      const all = await trifold.orders(account)
      assert.equal(all.filter(({ state }) => state === 'PENDING').length, 0)
      return all
    })
    assert.equal(orders.length, ORDERS)
    assert.equal(new Set(orders.map(({ orderNumber }) => orderNumber)).size, ORDERS)
    const approved = new Set(orders.filter(({ state }) => state === 'APPROVED').map(({ id }) => id))
    assert.equal(approved.size, AFFORDABLE)
    for (const { status, body } of placed) {
      if (status === 201 && flowOf(style).response === 'outcome') assert.ok(approved.has(body))
    }

    assert.equal(await trifold.balance(account), 0)
    const entries = await trifold.entries(account)
    assert.equal(entries.length, AFFORDABLE + 1)
    assert.equal(sumOf(entries), 0)
    assert.deepEqual(new Set(entries.slice(1).map(({ orderId }) => orderId)), approved)

    const messages = await eventually(async () => {
      const all = await trifold.messages(account)
      assert.equal(all.length, ORDERS + 1)
      return all
    })
    const texts = new Set(messages.map(({ text }) => text))
    assert.equal(texts.size, ORDERS + 1)
    for (const id of approved) assert.ok(texts.has(`ORDER ${id} PAID SUCCESSFULLY`))
    const times = messages.map(({ created }) => created)
    assert.deepEqual(times, [...new Set(times)].sort())
  })
}

test('leaves all invariants intact', () => assertInvariantsHold(trifold))
