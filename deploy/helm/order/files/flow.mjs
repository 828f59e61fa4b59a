// Run by `helm test`: a customer deposits money, places an order and reads the notices, in the deployment's style.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'

const { STYLE, ORDER_URL, BILLING_URL, NOTIFICATION_URL } = process.env
const TIMEOUT_MS = 60_000

async function call(method, url, body) {
  const response = await fetch(url, {
    method,
    headers: { 'content-type': 'application/json', prefer: 'wait=10' },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(20_000),
  })
  const result = await response.json()
  assert.ok(response.ok, `${method} ${url} returned ${response.status}: ${JSON.stringify(result)}`)
  return result
}

/** Polls until the result meets the condition, because events take a while to arrive. */
async function eventually(what, poll, isMet) {
  const deadline = performance.now() + TIMEOUT_MS
  for (;;) {
    const result = await poll()
    if (isMet(result)) return console.log(`${what}: yes`)
    assert.ok(performance.now() < deadline, `${what}: no, got ${JSON.stringify(result)}`)
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
  'the customer has a notice about each',
  () => call('GET', `${NOTIFICATION_URL}/notification/account/${account}`),
  (notices) => notices.map(({ event }) => event).join() === 'DEPOSIT_ACCEPTED,ORDER_PAID',
)
