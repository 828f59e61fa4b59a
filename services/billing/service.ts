import { createIdempotency, type StoredResponse } from '../../chassis/idempotency.ts'
import { NOTIFY_PATH, notificationCalls } from '../../chassis/notification-calls.ts'
import {
  createServiceServer,
  inBatches,
  type Reader,
  type Service,
  type ServiceParts,
} from '../../chassis/service.ts'
import { type BillingEvent, decodeEvent } from '../../contracts/events.ts'
import { Fault } from '../../contracts/problems.ts'
import { traceOf } from '../../contracts/trace-context.ts'
import { startConsumer } from '../../messaging/consumer/consumer.ts'
import { createOutbox, type OutboxRow } from '../../messaging/outbox/outbox.ts'
import { createRelay, type Watch } from '../../messaging/outbox/relay.ts'
import type { Caller } from '../../platform/async/coalesce.ts'
import { periodically } from '../../platform/async/periodically.ts'
import { createDatabaseClock } from '../../platform/database/clock.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { migrate } from '../../platform/database/migrate.ts'
import {
  type Addressed,
  type Applied,
  applyCommands,
  type CommandContext,
  responseTo,
} from './commands.ts'
import type { BillingConfig } from './config.ts'
import { SCHEMA } from './migrations/001-initial.ts'
import { COMPATIBLE_FROM, MIGRATIONS } from './migrations/all-migrations.ts'
import { orderCalls } from './order-calls.ts'
import { settleRequests } from './reactions.ts'
import { startResends } from './resends.ts'
import { billingRoutes } from './routes.ts'
import { findAccount, findPayments, listTransfers } from './store.ts'

/**
 * The longest that a response waits for the first attempt of its calls to notification. It also waits
 * at most half of the time that the caller has left, so that an unresponsive notification never looks
 * like an unresponsive billing.
 */
const FIRST_ATTEMPT_MS = 1_000

const SERVER = { service: 'billing', title: 'Trifold billing' } as const

type BillingServiceConfig = BillingConfig & {
  readonly NOTIFICATION_URL: string
  readonly ORDER_URL: string
}

/** Creates the billing service. This is the only place that connects its parts. */
export async function createBillingService(
  parts: ServiceParts,
  config: BillingServiceConfig,
): Promise<Service> {
  const { database, runtime, log, telemetry } = parts
  await migrate(database, SCHEMA, MIGRATIONS, COMPATIBLE_FROM)
  const outbox = createOutbox(SCHEMA)
  const idempotency = createIdempotency(SCHEMA)
  const databaseClock = createDatabaseClock(runtime)
  const context = async (tx: Queryable): Promise<CommandContext> => ({
    outbox,
    idempotency,
    now: await databaseClock(tx),
  })

  const relay = createRelay({ ...parts, schema: SCHEMA, outbox })
  relay.start({ http: callsOut(parts, config) }, parts.bus)

  /** After a commit: the outbox rows are sent, and changed payments are counted. */
  function announce(applied: readonly Applied[], committed: Queryable): void {
    relay.wake(committed)
    for (const result of applied) {
      if (result.kind !== 'applied' || result.changedPayment === undefined) continue
      telemetry.count('trifold_payments_total', { state: result.changedPayment.state })
    }
  }

  // The watch starts before the commit, because the relay may send the calls before the code after it runs.
  function watchCalls(result: Applied): Watch | undefined {
    const calls = result.kind === 'applied' ? result.callIds : []
    return calls.length > 0 ? relay.watch(calls) : undefined
  }

  const apply = inBatches<Addressed, { applied: Applied; watch: Watch | undefined }>(parts, {
    schema: SCHEMA,
    traceOf: ({ command }) => traceOf(command),
    async run(tx, batch) {
      const results = await applyCommands(tx, await context(tx), batch)
      return results.map((applied) => ({ applied, watch: watchCalls(applied) }))
    },
    afterCommit(results, tx) {
      announce(
        results.map(({ applied }) => applied),
        tx,
      )
    },
    afterRollback(results) {
      for (const { watch } of results) watch?.cancel()
    },
  })

  async function settle(
    addressed: Addressed,
    caller: Caller & { remainingMs(): number },
  ): Promise<StoredResponse> {
    const { applied, watch } = await apply({ ...addressed, waiting: caller }, caller)
    if (applied.kind === 'refused') throw applied.fault
    if (applied.kind === 'repeated') return applied.response
    const callerWaitsMs = Math.min(caller.remainingMs(), config.CALL_TIMEOUT_MS)
    await watch?.attempted(Math.max(0, Math.min(FIRST_ATTEMPT_MS, callerWaitsMs / 2)))
    const { outcome } = applied
    if (outcome.kind === 'refused') throw new Fault(outcome.code)
    return responseTo(addressed.command, outcome)
  }

  const reader: Reader<BillingEvent> = {
    ...parts,
    schema: SCHEMA,
    group: 'billing',
    topics: ['billing'],
    decode: decodeEvent<BillingEvent>,
    handle: async (tx, events) =>
      settleRequests(tx, { ...(await context(tx)), newId: runtime.uuid }, events, announce),
  }
  const consumer = startConsumer(reader)
  const resends = startResends({ ...parts, databaseClock, config, outbox, wake: relay.wake })
  const keyExpiry = periodically(60_000, runtime, log, () =>
    idempotency.expire(database, config.IDEMPOTENCY_KEY_TTL_MS),
  )

  const app = await createServiceServer({ ...reader, outbox, relay }, SERVER)
  billingRoutes(app, {
    newId: runtime.uuid,
    defaultStyle: config.INTERACTION_STYLE,
    allowOverride: config.ALLOW_STYLE_OVERRIDE,
    customerDeposits: config.CUSTOMER_DEPOSITS,
    settle,
    findAccount: (id) => findAccount(database, id),
    findPayment: async (orderId) => (await findPayments(database, [orderId])).get(orderId),
    listEntries: (accountId, page) => listTransfers(database, accountId, page),
  })
  await app.ready()

  return {
    app,
    async close() {
      await app.close()
      await Promise.all([resends.close(), keyExpiry.close(), consumer.close()])
      await relay.close()
    },
  }
}

function callsOut({ http }: ServiceParts, config: BillingServiceConfig) {
  const common = { http, timeoutMs: config.CALL_TIMEOUT_MS }
  const notify = notificationCalls({ ...common, notificationUrl: config.NOTIFICATION_URL })
  const notifyOrder = orderCalls({ ...common, orderUrl: config.ORDER_URL })
  return (row: OutboxRow) => (row.destination === NOTIFY_PATH ? notify(row) : notifyOrder(row))
}
