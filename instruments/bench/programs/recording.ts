import assert from 'node:assert/strict'
import { allInOneConfig } from '../../../apps/all-in-one/config.ts'
import type { Service, ServiceParts } from '../../../chassis/service.ts'
import type { InteractionStyle } from '../../../contracts/style.ts'
import { createEmbeddedBus } from '../../../messaging/embedded/bus.ts'
import { TOPICS } from '../../../messaging/topics.ts'
import { type Runtime, systemRuntime } from '../../../platform/async/runtime.ts'
import { until } from '../../../platform/async/until.ts'
import type { Database, Queryable } from '../../../platform/database/database.ts'
import { openPglite } from '../../../platform/pglite/pglite.ts'
import { readConfig } from '../../../platform/process/config.ts'
import { createLog, createTelemetry } from '../../../platform/telemetry/telemetry.ts'
import { createBillingService } from '../../../services/billing/service.ts'
import { createNotificationService } from '../../../services/notification/service.ts'
import { createOrderService } from '../../../services/order/service.ts'

/**
 * The statements that the services execute for one order. They are recorded from the services themselves, so
 * that a reference that runs them does the same work even after the services have changed. Each transaction
 * has one order.
 */
export interface Recording {
  readonly transactions: readonly (readonly Statement[])[]
  /** The ids that were generated for this order, in the order in which they were generated. */
  readonly ids: readonly string[]
  readonly account: string
}

export interface Statement {
  readonly text: string
  readonly params: readonly unknown[]
}

/**
 * What a parameter stands for: an id that was generated for this order, by its index in `ids`, or the account, each
 * followed by a suffix; or the account's new version or balance.
 */
export type Role =
  | { readonly kind: 'id'; readonly place: number; readonly suffix: string }
  | { readonly kind: 'account'; readonly suffix: string }
  | { readonly kind: 'newVersion' }
  | { readonly kind: 'newBalance' }

/** Unusual numbers, by which `roleOf` recognizes the version and the balance. */
const VERSION = 1_000_001
const BALANCE_MINOR = 700_000_007n
export const PRICE_MINOR = 6_500n

/** Long enough that a slow machine resends nothing during the recording. */
const SETTINGS = {
  ...readConfig(allInOneConfig, { RESEND_AFTER_MS: '60000' }),
  BILLING_URL: '',
  NOTIFICATION_URL: '',
  ORDER_URL: '',
}

/** Places an order in this style and records the statements that the three services execute for it. */
export async function recordOrder(style: InteractionStyle): Promise<Recording> {
  const database = await openPglite()
  const ids: string[] = []
  const recorded: Statement[][] = []
  const runtime = { ...systemRuntime, uuid: () => kept(ids, systemRuntime.uuid()) }
  const bus = await createEmbeddedBus({ database, runtime: systemRuntime, topics: TOPICS })
  const services = await startServices(recording(database, recorded), bus, runtime)
  try {
    const account = await post(services.billing, '/billing/account/create', undefined, style)
    await database.script(
      `update billing.account set version = ${VERSION}, balance_minor = ${BALANCE_MINOR}`,
    )
    ids.length = 0
    recorded.length = 0
    const path = `/orders?profileId=${account}`
    const order = await post(services.order, path, { productQuantity: 1 }, style)
    await until(
      async () => {
        const messages = await database.query('select from notification.message')
        const approved = await database.query(`select from orders.orders where state = 'APPROVED'`)
        return messages.length === 1 && approved.length === 1
      },
      { what: 'the recorded order' },
    )
    const transactions = recorded.filter((one) => mentions(one, order) && one.some(isWriting))
    assert.equal(transactions.length, 4, 'an order is four transactions')
    return { transactions, ids: [...ids], account }
  } finally {
    for (const service of Object.values(services)) await service.close()
    await bus.close()
    await database.close()
  }
}

async function startServices(database: Database, bus: ServiceParts['bus'], runtime: Runtime) {
  const apps = new Map<string, Service['app']>()
  const parts = (name: string): ServiceParts => ({
    database,
    bus,
    runtime,
    soleProcess: true,
    http: async ({ target, method, url, headers, body }) => {
      const call = { method, url, headers: { ...headers }, ...(body && { payload: body }) }
      const response = await apps.get(target)!.inject(call)
      return { status: response.statusCode, body: response.body }
    },
    log: createLog('warn', name),
    telemetry: createTelemetry(name),
    server: {
      basePath: '/',
      bodyLimitBytes: 65_536,
      rateLimitPerMinute: 0,
    },
  })
  const order = await createOrderService(parts('order'), SETTINGS)
  const billing = await createBillingService(parts('billing'), SETTINGS)
  const mailer = {
    deliver: async () => ({ kind: 'done' }) as const,
    isDown: () => false,
    close() {},
  }
  const notification = await createNotificationService(parts('notification'), SETTINGS, mailer)
  const services = { order, billing, notification }
  for (const [name, { app }] of Object.entries(services)) apps.set(name, app)
  return services
}

async function post(
  { app }: Service,
  url: string,
  payload: object | undefined,
  style: InteractionStyle,
): Promise<string> {
  const headers = { 'x-interaction-style': style }
  const response = await app.inject({ method: 'POST', url, headers, ...(payload && { payload }) })
  assert.ok(response.statusCode < 300, `${url} got ${response.statusCode}: ${response.body}`)
  return JSON.parse(response.body)
}

/** A database that records its committed transactions, and statements outside a transaction, in `recorded`. */
function recording(database: Database, recorded: Statement[][]): Database {
  return {
    ...database,
    async query<Row>(text: string, params: readonly unknown[] = []) {
      const rows = await database.query<Row>(text, params)
      if (!isDelivery(text)) recorded.push([{ text, params }])
      return rows
    },
    async transaction<T>(work: (tx: Queryable) => Promise<T>) {
      const statements: Statement[] = []
      const result = await database.transaction((tx) => {
        const query = tx.query.bind(tx)
        const spy: Queryable = Object.assign(tx, {
          query: <Row>(text: string, params: readonly unknown[] = []) => {
            statements.push({ text, params })
            return query<Row>(text, params)
          },
        })
        return work(spy)
      })
      recorded.push(statements)
      return result
    },
  }
}

const isWriting = ({ text }: Statement) => !/^\s*select\b/.test(text)
/**
 * Whether this is the relay's deletion of delivered rows, which is left out because the reference delivers no
 * rows.
 */
const isDelivery = (text: string) => /delete from \w+\.outbox/.test(text)

function mentions(statements: readonly Statement[], id: string): boolean {
  return statements.some(({ params }) => params.flat().some((value) => String(value).includes(id)))
}

function kept(ids: string[], id: string): string {
  ids.push(id)
  return id
}

/** What a parameter stands for; undefined if it is the same for every order. */
export function roleOf(value: unknown, { ids, account }: Recording): Role | undefined {
  if (typeof value === 'string') {
    if (value.startsWith(account)) return { kind: 'account', suffix: value.slice(account.length) }
    const place = ids.findIndex((id) => value.startsWith(id))
    if (place >= 0) return { kind: 'id', place, suffix: value.slice(ids[place]!.length) }
  }
  if (value === VERSION + 1) return { kind: 'newVersion' }
  if (value === BALANCE_MINOR - PRICE_MINOR) return { kind: 'newBalance' }
  return undefined
}

/** Whether the statement reads the balance and version from which the new ones are computed. */
export const locksAccount = (text: string) => /billing\.account\s.*for update/s.test(text)
