import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, test } from 'node:test'
import type { WaitingOrderView } from '../../contracts/http.ts'
import { eventually, UNIT_PRICE } from '../e2e/client.ts'
import { compileForeignPrograms, type ForeignService } from '../interop/foreign-service.ts'
import { LIMIT_MS, messagesAre } from '../interop/witnesses.ts'
import { fetchFromReplica, metricOf, startOwnStack } from './own-stack.ts'

/**
 * A paid order is deleted, and the billing service is a program that charges for every ORDER_CREATED and does
 * not know ORDER_CANCELED, like the original Java service.
 */
const RESEND_AFTER_MS = 2_000
const VOID_ATTEMPTS = 2
const DEPOSIT = 10 * UNIT_PRICE

const foreign = await compileForeignPrograms()
after(() => foreign.remove())

for (const { resend, cancellations, does } of [
  { resend: true, cancellations: 1 + VOID_ATTEMPTS, does: 'repeats only the cancellation' },
  { resend: false, cancellations: 1, does: 'repeats nothing' },
]) {
  const name = `with RESEND=${resend}, a deleted order ${does}, and is reported as stuck`
  test(name, { timeout: 180_000 }, async (t) => {
    const stack = await startOwnStack(
      { order: 1, billing: 0, notification: 1 },
      {
        RESEND: String(resend),
        RESEND_AFTER_MS: String(RESEND_AFTER_MS),
        VOID_ATTEMPTS: String(VOID_ATTEMPTS),
      },
    )
    const billing = foreign.start(stack.brokers, 'original-billing')
    t.after(async () => {
      try {
        await billing.stop()
      } finally {
        await stack.close()
      }
    })
    const { client } = stack
    const order = stack.replicas.find(({ service }) => service === 'order')!
    const account = crypto.randomUUID()
    const deposit = { event: 'DEPOSIT_REQUEST', accountId: account, value: DEPOSIT }
    await billing.send('billing', account, deposit)
    const deposited = `DEPOSIT ${DEPOSIT} ACCEPTED ON ACCOUNT ${account}`
    await messagesAre(client, account, [deposited])
    const { body: orderId } = await client.order(account, { style: 'events' })
    assert.equal((await client.getOrder(account, orderId, 30)).state, 'APPROVED')

    await client.deleteOrder(account, orderId)
    const stuck = await eventually(async () => {
      const orders = await client.readAll<WaitingOrderView>('/orders/pending?stuck=true')
      assert.equal(orders.length, 1)
      return orders[0]!
    }, LIMIT_MS)
    assert.deepEqual(
      [stuck.id, stuck.state, stuck.waitsFor, stuck.attempts],
      [orderId, 'CANCELED', 'void', VOID_ATTEMPTS],
    )
    const minutes = (Date.parse(stuck.nextAttempt) - Date.now()) / 60_000
    assert.ok(minutes > 50, `the next attempt is in ${minutes} minutes`)
    const { body: scrape } = await fetchFromReplica(order, 'actuator/prometheus')
    assert.equal(metricOf(scrape, 'trifold_orders_stuck'), 1)
    await eventually(async () => {
      assert.match(
        readFileSync(order.logFile, 'utf8'),
        new RegExp(`"${orderId}".*orders are stuck`),
      )
    }, LIMIT_MS)

    // A later order of the same account is behind every resent request in the topic.
    const { body: laterId } = await client.order(account, { style: 'events' })
    assert.equal((await client.getOrder(account, laterId, 30)).state, 'APPROVED')
    assert.deepEqual(eventsOf(billing, account), [
      'DEPOSIT_REQUEST',
      `ORDER_CREATED ${orderId}`,
      ...Array<string>(cancellations).fill(`ORDER_CANCELED ${orderId}`),
      `ORDER_CREATED ${laterId}`,
    ])
    await messagesAre(client, account, [
      deposited,
      `ORDER ${orderId} PAID SUCCESSFULLY`,
      `ORDER ${laterId} PAID SUCCESSFULLY`,
    ])
  })
}

/** The messages about an account that the billing service has read, including resends. */
function eventsOf({ records }: ForeignService, account: string): string[] {
  return records
    .filter(({ key }) => key === account)
    .map(({ value }) => {
      const { event, orderId } = JSON.parse(value) as { event: string; orderId?: string }
      return orderId === undefined ? event : `${event} ${orderId}`
    })
}
