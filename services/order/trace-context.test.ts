import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { InteractionStyle } from '../../contracts/style.ts'
import { until } from '../../platform/async/until.ts'
import { ORDER_DEADLINE_MS, POLL_MS, startOrder } from '../../tests/support/order-service.ts'

const { clock, billing, wire, call } = await startOrder('cut', ['billing', 'payment'])

const theirs = {
  traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  tracestate: 'shop=7',
}
const place = (accountId: string, style: InteractionStyle, headers: Record<string, string>) =>
  call('POST', `/orders?profileId=${accountId}`, {
    body: { productQuantity: 3 },
    headers: { 'x-interaction-style': style, ...headers },
  })

/** The trace of a message or call. */
const traceOf = ({ traceparent, tracestate }: Record<string, unknown>) => ({
  ...(traceparent !== undefined && { traceparent }),
  ...(tracestate !== undefined && { tracestate }),
})
const named = (accountId: string, event: string) =>
  wire.of(accountId).filter(({ body }) => body.event === event)

// Without tracing, the trace context of the request passes through, and none is created.
for (const [whose, headers] of [
  ['its customer`s trace', theirs],
  ['no trace where its customer is in none', {}],
] as const) {
  test(`a request is resent, and an order voided at its deadline, in ${whose}`, async () => {
    const accountId = crypto.randomUUID()
    await place(accountId, 'events', headers)
    await until(() => {
      clock.advance(POLL_MS)
      return named(accountId, 'ORDER_CREATED').length >= 3
    })
    clock.advance(ORDER_DEADLINE_MS)
    await until(() => named(accountId, 'ORDER_CANCELED').length > 0)
    for (const message of wire.of(accountId)) assert.deepEqual(traceOf(message.headers), headers)
  })

  test(`a failed payment is voided and announced in ${whose}`, async () => {
    const accountId = crypto.randomUUID()
    const { status, body } = await place(accountId, 'hybrid', headers)
    assert.equal(status, 503)
    const calls = await until(() => {
      const about = billing.about(body.orderId)
      return about.some(({ path }) => path.endsWith('/void')) && about
    })
    assert.equal(calls[0]!.path, '/billing/account')
    for (const call of calls) assert.deepEqual(traceOf(call.headers), headers)
    const [failure] = await until(
      () => named(accountId, 'PAYMENT_FAIL').length > 0 && named(accountId, 'PAYMENT_FAIL'),
    )
    assert.deepEqual(traceOf(failure!.headers), headers)
  })
}
