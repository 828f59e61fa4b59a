import { after } from 'node:test'
import type { Bus } from '../../messaging/bus.ts'
import { until } from '../../platform/async/until.ts'
import { createBillingService } from '../../services/billing/service.ts'
import { caller, openParts, readTopics, sendBare, startFakeService } from './harness.ts'

/** Milliseconds between the billing service's polls for deposits to resend. */
export const POLL_MS = 1_000

/**
 * Starts only the billing service, for one test file, with a bus and one fake service in place of the order
 * and notification services.
 */
export async function startBilling() {
  const { parts, clock, close } = await openParts('billing')
  const { bus, database } = parts
  const loses = { next: (_id: string): boolean => false }
  const forgetful: Bus = {
    ...bus,
    send: (messages) =>
      bus.send(messages.filter(({ headers }) => !loses.next(headers.ce_id ?? ''))),
  }
  const others = await startFakeService({ status: 200, body: 'an id' })
  const service = await createBillingService(
    { ...parts, bus: forgetful },
    {
      INTERACTION_STYLE: 'events',
      ALLOW_STYLE_OVERRIDE: true,
      CALL_TIMEOUT_MS: 300,
      IDEMPOTENCY_KEY_TTL_MS: 86_400_000,
      CUSTOMER_DEPOSITS: false,
      DEPOSIT_RESEND_AFTER_MS: 100,
      NOTIFICATION_URL: others.url,
      ORDER_URL: others.url,
    },
  )
  const wire = await readTopics(bus, ['billing', 'payment', 'balance'])
  after(async () => {
    await wire.close()
    await service.close()
    await others.close()
    await close()
  })
  const world = { bus, database, clock, others, wire, call: caller(service) }
  return {
    ...world,
    ...observe(world),
    /**
     * Called with the id of each message; if it returns true, the message is lost, although the billing
     * service's send succeeds.
     */
    loses,
  }
}

type World = Pick<Awaited<ReturnType<typeof openParts>>['parts'], 'bus' | 'database'> & {
  readonly call: ReturnType<typeof caller>
  readonly wire: Awaited<ReturnType<typeof readTopics>>
}

function observe({ bus, database, call, wire }: World) {
  const on = (topic: string, accountId: string) =>
    wire.of(accountId).filter((message) => message.topic === topic)

  /** The last event of this name about an account, once at least `count` of them were published. */
  const announced = (accountId: string, event: string, count = 1) =>
    until(
      () => {
        const found = on('payment', accountId).filter(({ body }) => body.event === event)
        return found.length >= count && found.at(-1)
      },
      { what: `${event} for ${accountId}` },
    )

  const deadLetters = (accountId: string) =>
    database.query<{ reason: string; code: string; value: Uint8Array }>(
      'select reason, code, value from billing.dead_letter where key = $1 order by "offset"',
      [accountId],
    )

  return {
    on,
    announced,
    deadLetters,
    firstDeadLetter: async (accountId: string) => {
      await until(async () => (await deadLetters(accountId)).length > 0, { what: 'a dead letter' })
      return (await deadLetters(accountId))[0]!
    },
    balanceOf: async (accountId: string) =>
      (await call('GET', `/billing/account/${accountId}`)).body.balance,
    entriesOf: async (accountId: string): Promise<{ kind: string; amount: number }[]> =>
      (await call('GET', `/billing/account/${accountId}/entries`)).body,

    /** Opens an account. Money is deposited in `hybrid`; no message about it is in flight afterwards. */
    async openAccount(amount?: number): Promise<string> {
      const { body: accountId } = await call('POST', '/billing/account/create')
      if (amount) {
        const headers = { 'x-interaction-style': 'hybrid' }
        await call('POST', `/billing/account/${accountId}?amount=${amount}`, { headers })
        await announced(accountId, 'DEPOSIT_ACCEPTED')
      }
      return accountId
    },

    /** Waits until the billing service has handled all messages that were sent before for an account. */
    async handled(accountId: string): Promise<void> {
      const orderId = crypto.randomUUID()
      const body = { event: 'ORDER_CREATED', orderId, accountId, price: 1_000_000 }
      await sendBare(bus, 'billing', body)
      await until(() =>
        on('payment', accountId).some((message) => message.body.orderId === orderId),
      )
    },
  }
}
