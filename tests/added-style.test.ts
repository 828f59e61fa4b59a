import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { InteractionStyle } from '../contracts/style.ts'
import { plant } from '../instruments/mutants/plant.ts'

/**
 * A new style needs only a row in `FLOWS`: with a fourth row and no other change, the outcome suite passes in
 * all four styles, and the new style behaves according to the properties in its row.
 */
const STYLE = 'mixture' as InteractionStyle

const assertLoaded = plant([
  {
    file: 'contracts/style.ts',
    find: '  events: {',
    replace: `  mixture: { payment: 'event', announcement: 'call', response: 'id', deposit: 'booked' },
  events: {`,
  },
])
await import('./e2e/outcomes.test.ts')
const { eventually } = await import('./e2e/client.ts')
const { startProgram } = await import('./e2e/program.ts')
assertLoaded()

test('mixture: while the broker is down a deposit is announced, and an order waits', async () => {
  const trifold = await startProgram()
  try {
    const account = await trifold.createAccount()
    await trifold.lab.broker.stop()
    assert.equal(await trifold.deposit(account, 199, STYLE), 199)
    assert.deepEqual(await announced(), ['DEPOSIT_ACCEPTED'])
    const { status, body: id } = await trifold.order(account, { style: STYLE })
    assert.equal(status, 201)
    assert.equal((await trifold.getOrder(account, id, 0)).state, 'PENDING')

    await trifold.lab.broker.start()
    await eventually(async () => {
      assert.deepEqual(await announced(), ['DEPOSIT_ACCEPTED', 'ORDER_PAID'])
      assert.equal((await trifold.getOrder(account, id, 0)).state, 'APPROVED')
    })

    async function announced(): Promise<string[]> {
      return (await trifold.messages(account)).map(({ event }) => event)
    }
  } finally {
    await trifold.close()
  }
})
