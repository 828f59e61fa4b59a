import { after } from 'node:test'
import type { OrderConfig } from '../../services/order/config.ts'
import { createOrderService } from '../../services/order/service.ts'
import { caller, type FakeResponse, openParts, readTopics, startFakeService } from './harness.ts'

/** Milliseconds between the order service's polls for resends that are due. */
export const POLL_MS = 1_000
const RESEND_AFTER_MS = 100
export const VOID_ATTEMPTS = 4
export const ORDER_DEADLINE_MS = 600_000

/**
 * Starts only the order service, for one test file, with a bus whose `topics` are recorded, a fake billing
 * service that gives this response until the test sets another, and a fake notification service.
 */
export async function startOrder(
  billingResponse: FakeResponse,
  topics: readonly string[],
  settings: Partial<OrderConfig> = {},
) {
  const { parts, clock, close } = await openParts('order')
  const billing = await startFakeService(billingResponse)
  const notification = await startFakeService({ status: 200, body: 'an id' })
  const service = await createOrderService(parts, {
    INTERACTION_STYLE: 'events',
    ALLOW_STYLE_OVERRIDE: true,
    CALL_TIMEOUT_MS: 300,
    IDEMPOTENCY_KEY_TTL_MS: 86_400_000,
    UNIT_PRICE: '65',
    RESEND: true,
    VOID_ATTEMPTS,
    RESEND_AFTER_MS,
    ORDER_DEADLINE_MS,
    ...settings,
    BILLING_URL: billing.url,
    NOTIFICATION_URL: notification.url,
  })
  const wire = await readTopics(parts.bus, topics)
  after(async () => {
    await wire.close()
    await service.close()
    await billing.close()
    await notification.close()
    await close()
  })
  const { bus, database } = parts
  const metricsText = async () =>
    (await service.app.inject({ url: '/orders/actuator/prometheus' })).body
  return { bus, database, clock, billing, notification, wire, call: caller(service), metricsText }
}
