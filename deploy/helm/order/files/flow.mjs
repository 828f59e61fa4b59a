// What `helm test` runs: a customer deposits, orders, and hears of it, in the style of the deployment.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'

const { STYLE, ORDER_URL, BILLING_URL, NOTIFICATION_URL } = process.env
const PATIENCE_MS = 60_000

async function call(method, url, body) {
  const response = await fetch(url, {
    method,
    headers: { 'content-type': 'application/json', prefer: 'wait=10' },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(20_000),
  })
  const answer = await response.json()
  assert.ok(response.ok, `${method} ${url} answered ${response.status}: ${JSON.stringify(answer)}`)
  return answer
}

/** Asks until the answer is as it should be; events take their time. */
async function eventually(what, ask, isSo) {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const answer = await ask()
    if (isSo(answer)) return console.log(`${what}: yes`)
    assert.ok(performance.now() < deadline, `${what}: no, but ${JSON.stringify(answer)}`)
    await pause(200)
  }
}

const account = await call('POST', `${BILLING_URL}/billing/account/create`)
await call('POST', `${BILLING_URL}/billing/account/${account}?amount=100`)
const accountUrl = `${BILLING_URL}/billing/account/${account}`
await eventually('the deposit is booked', () => call('GET', accountUrl), ({ balance }) => balance === 100)

const order = await call('POST', `${ORDER_URL}/orders?profileId=${account}`, { productQuantity: 1 })
const orderUrl = `${ORDER_URL}/orders/${order}?profileId=${account}`
await eventually(
  `the order is paid, in the style ${STYLE}`,
  () => call('GET', orderUrl),
  ({ state, style }) => state === 'APPROVED' && style === STYLE,
)
const { price } = await call('GET', orderUrl)
await eventually('the money is taken once', () => call('GET', accountUrl), ({ balance }) => balance === 100 - price)
await eventually(
  'the customer was told of both',
  () => call('GET', `${NOTIFICATION_URL}/notification/account/${account}`),
  (messages) => messages.map(({ event }) => event).join() === 'DEPOSIT_ACCEPTED,ORDER_PAID',
)
