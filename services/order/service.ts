import { createIdempotency } from '../../chassis/idempotency.ts'
import { NOTIFY_PATH, notificationCalls } from '../../chassis/notification-calls.ts'
import {
  createServiceServer,
  inBatches,
  type Reader,
  requestBatches,
  type Service,
  type ServiceParts,
} from '../../chassis/service.ts'
import { decodeEvent, type PaymentEvent } from '../../contracts/events.ts'
import type { Page } from '../../contracts/http.ts'
import { parseAmount } from '../../contracts/money.ts'
import { STYLES } from '../../contracts/style.ts'
import { startConsumer } from '../../messaging/consumer/consumer.ts'
import { createOutbox, type OutboxRow } from '../../messaging/outbox/outbox.ts'
import { createRelay } from '../../messaging/outbox/relay.ts'
import { coalesce, shared } from '../../platform/async/coalesce.ts'
import { createDatabaseClock } from '../../platform/database/clock.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { billingCalls } from './billing-calls.ts'
import {
  type AddressedCommand,
  type Applied,
  applyCommands,
  type CommandContext,
  type Placement,
} from './commands.ts'
import type { OrderConfig } from './config.ts'
import { SCHEMA } from './migrations/001-initial.ts'
import { COMPATIBLE_FROM, MIGRATIONS } from './migrations/all-migrations.ts'
import { operatorRoutes } from './operator-routes.ts'
import type { OrderState } from './order.ts'
import { createOutcomes } from './outcomes.ts'
import { settleOrders } from './reactions.ts'
import { startResends } from './resends.ts'
import { orderRoutes } from './routes.ts'
import {
  countPending,
  countStuck,
  findOrders,
  listOrders,
  listWaiting,
  type PendingOrders,
  type StoredOrder,
} from './store.ts'

const SERVER = { service: 'orders', title: 'Trifold order' } as const

type OrderServiceConfig = OrderConfig & {
  readonly BILLING_URL: string
  readonly NOTIFICATION_URL: string
}

/** Creates the order service. This is the only place that connects its parts. */
export async function createOrderService(
  parts: ServiceParts,
  config: OrderServiceConfig,
): Promise<Service> {
  const { database, runtime, telemetry } = parts
  await migrate(database, SCHEMA, MIGRATIONS, COMPATIBLE_FROM)
  const outbox = createOutbox(SCHEMA)
  const idempotency = createIdempotency(SCHEMA)
  const relay = createRelay({ ...parts, schema: SCHEMA, outbox })
  const outcomes = createOutcomes({ ...parts, hasPeers: relay.hasPeers })
  const databaseClock = createDatabaseClock(runtime)
  const context = async (tx: Queryable): Promise<CommandContext> => ({
    outbox,
    idempotency,
    now: await databaseClock(tx),
    resendAfterMs: config.RESEND_AFTER_MS,
    deadlineMs: config.ORDER_DEADLINE_MS,
  })

  /** After a commit: the outbox rows are sent, and requests that wait for these orders are answered. */
  function announce(applied: readonly Applied[], committed: Queryable): void {
    outcomes.placed(applied.flatMap((one) => (one.kind === 'placed' ? [one.order] : [])))
    relay.wake(committed)
    const settled = applied.flatMap((one) =>
      one.kind === 'changed' && one.order.state !== 'PENDING' ? [one] : [],
    )
    outcomes.settled(settled.map(({ order }) => order))
    for (const { order, from } of settled) {
      if (from !== order.state) measure(order, from, parts)
    }
  }

  // New orders and state changes share transactions; separately they would need twice as many.
  const apply = inBatches<Placement | AddressedCommand, Applied>(parts, {
    schema: SCHEMA,
    traceOf: ({ trace }) => trace ?? {},
    run: async (tx, batch) => applyCommands(tx, await context(tx), batch),
    afterCommit: announce,
  })
  relay.start({ http: callsOut(parts, config, apply) }, parts.bus)
  const reader: Reader<PaymentEvent> = {
    ...parts,
    schema: SCHEMA,
    group: 'order',
    topics: ['payment'],
    decode: decodeEvent<PaymentEvent>,
    handle: async (tx, events) => settleOrders(tx, await context(tx), events, announce),
  }
  const consumer = startConsumer(reader)
  const resends = startResends({
    ...parts,
    databaseClock,
    config,
    outbox,
    idempotency,
    apply,
    wake: relay.wake,
  })

  const app = await createServiceServer({ ...reader, outbox, relay }, SERVER)
  orderRoutes(app, {
    ...reads(parts),
    ...customerSettings(config),
    newId: runtime.uuid,
    apply,
    awaitOutcome: outcomes.wait,
    isPending: outcomes.isPending,
    findResponse: async (key) => (await idempotency.find(database, [key])).get(key)?.response,
  })
  operatorRoutes(app, {
    voidAttempts: config.VOID_ATTEMPTS,
    listWaiting: (filter) => listWaiting(database, filter),
  })
  await app.ready()
  observePending(parts)
  telemetry.gauge('trifold_orders_stuck', () => countStuck(database, config.VOID_ATTEMPTS))

  return {
    app,
    async close() {
      await app.close()
      await resends.close()
      await consumer.close()
      await relay.close()
      outcomes.close()
    },
  }
}

function callsOut(
  { http, log, database }: ServiceParts,
  config: OrderServiceConfig,
  apply: (command: AddressedCommand) => Promise<Applied>,
) {
  const common = { http, timeoutMs: config.CALL_TIMEOUT_MS }
  const notify = notificationCalls({ ...common, notificationUrl: config.NOTIFICATION_URL })
  const callBilling = billingCalls({
    ...common,
    log,
    billingUrl: config.BILLING_URL,
    settle: async (orderId, command, trace) => void (await apply({ orderId, command, trace })),
    isPending: async (id) => (await findOrders(database, [id])).get(id)?.state === 'PENDING',
  })
  return (row: OutboxRow) => (row.destination === NOTIFY_PATH ? notify(row) : callBilling(row))
}

/** Concurrent reads of single orders share a statement. */
const reads = ({
  database,
  ...parts
}: Pick<ServiceParts, 'database' | 'telemetry' | 'runtime'>) => ({
  find: coalesce<string, StoredOrder | undefined>({
    ...requestBatches(parts),
    async run(ids) {
      const orders = await findOrders(database, [...new Set(ids)])
      return ids.map((id) => orders.get(id))
    },
  }),
  list: (profileId: string, page: Page) => listOrders(database, profileId, page),
})

/** The settings for customers' requests. */
const customerSettings = (config: OrderConfig) => ({
  unitPriceMinor: unitPrice(config.UNIT_PRICE),
  defaultStyle: config.INTERACTION_STYLE,
  allowOverride: config.ALLOW_STYLE_OVERRIDE,
  // Longer than the call to billing, so that its failure can be settled and becomes the response.
  outcomeTimeoutMs: config.CALL_TIMEOUT_MS + 2_000,
})

function measure(order: StoredOrder, from: OrderState, { telemetry }: ServiceParts): void {
  const { style, state, reason, created, updated } = order
  telemetry.count('trifold_orders_total', { style, state, reason: reason ?? '' })
  if (from !== 'PENDING') return
  const seconds = (updated.getTime() - created.getTime()) / 1000
  telemetry.observe('trifold_order_settle_seconds', seconds, { style })
}

/** Gauges of PENDING orders: orders that settle late or never do not show in the time to settle. */
function observePending({ database, runtime, telemetry }: ServiceParts): void {
  const read = shared(() => countPending(database))
  const byStyle = (figure: (pending: PendingOrders | undefined) => number) => async () => {
    const pending = await read()
    return STYLES.map((style) => ({
      labels: { style },
      value: figure(pending.find((of) => of.style === style)),
    }))
  }
  telemetry.gauge(
    'trifold_orders_pending',
    byStyle((pending) => Number(pending?.orders ?? 0)),
  )
  telemetry.gauge(
    'trifold_orders_pending_oldest_seconds',
    byStyle((pending) => (pending ? (runtime.now() - pending.oldest.getTime()) / 1000 : 0)),
  )
}

function unitPrice(text: string): bigint {
  const minor = parseAmount(text)
  if (typeof minor === 'string') throw new RangeError(`UNIT_PRICE ${minor}`)
  return minor
}
