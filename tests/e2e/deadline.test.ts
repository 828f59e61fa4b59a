import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { PaymentView } from '../../contracts/http.ts'
import { eventually } from './client.ts'
import { assertInvariantsHold } from './invariants.ts'
import { startProgram } from './program.ts'

const trifold = await startProgram({ ORDER_DEADLINE_MS: '2000' })
after(() => trifold.close())

test('events: an order that the billing service reads too late is canceled at its deadline, announced once, and never paid', async () => {
  const account = await trifold.fundedAccount(100)
  const textsAre = (texts: readonly string[]) =>
    eventually(async () => {
      const messages = await trifold.messages(account)
      assert.deepEqual(
        messages.map(({ text }) => text),
        texts,
      )
    })
  await trifold.lab.billing.stop()
  const { status, body: id } = await trifold.order(account, { style: 'events' })
  assert.equal(status, 201)
  const { state, reason } = await trifold.getOrder(account, id)
  assert.deepEqual([state, reason], ['CANCELED', 'DEADLINE_PASSED'])
  const expected = [
    `DEPOSIT 100 ACCEPTED ON ACCOUNT ${account}`,
    `ORDER ${id} NOT PAID: it was canceled`,
  ]
  await textsAre(expected)

  // The payment request is still on the topic, ahead of the cancellation.
  await trifold.lab.billing.start()
  await eventually(async () => {
    const { body } = await trifold.call<Partial<PaymentView>>('GET', `/billing/payments/${id}`)
    assert.deepEqual([body.state, body.reason], ['REFUSED', 'DEADLINE_PASSED'])
  })
  // The notice of a later deposit comes after all announcements of the billing service about the order.
  await trifold.deposit(account, 7, 'events')
  await textsAre([...expected, `DEPOSIT 7 ACCEPTED ON ACCOUNT ${account}`])
  assert.deepEqual(
    (await trifold.entries(account)).map(({ amount }) => amount).sort((a, b) => a - b),
    [7, 100],
  )
  assert.equal((await trifold.getOrder(account, id)).reason, 'DEADLINE_PASSED')
  await assertInvariantsHold(trifold)
})
