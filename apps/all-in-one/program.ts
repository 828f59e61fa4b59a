import { join, resolve } from 'node:path'
import {
  createStoppedServer,
  measured,
  type Service,
  type ServiceParts,
} from '../../chassis/service.ts'
import type { ServiceName } from '../../contracts/access.ts'
import { createEmbeddedBus, type EmbeddedBus } from '../../messaging/embedded/bus.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { type Log, systemRuntime } from '../../platform/async/runtime.ts'
import { openAuth } from '../../platform/auth/auth.ts'
import { createOwnIssuer, withServiceToken } from '../../platform/auth/service-tokens.ts'
import type { Database } from '../../platform/database/database.ts'
import type { RouteAccess } from '../../platform/http/access.ts'
import { createHttpClient, tracedCalls } from '../../platform/http/client.ts'
import type { HttpServer } from '../../platform/http/server.ts'
import { openPglite } from '../../platform/pglite/pglite.ts'
import { networksOf } from '../../platform/process/config-formats.ts'
import { createLog, createTelemetry } from '../../platform/telemetry/telemetry.ts'
import { openTracer } from '../../platform/telemetry/tracing-start.ts'
import { createBillingService } from '../../services/billing/service.ts'
import { createNotificationService } from '../../services/notification/service.ts'
import { createOrderService } from '../../services/order/service.ts'
import type { AllInOneConfig } from './config.ts'
import { openGateway, stoppedName } from './gateway.ts'
import { type Lab, type SwitchName, switchable } from './lab.ts'

/** The three services, their broker, their database and the gateway, all in one process. */
export interface Program {
  /** The URL of the gateway. */
  readonly url: string
  readonly lab: Lab
  /** The database that all parts share, with a schema for each service and one for the bus. */
  readonly database: Database
  readonly dataDir: string
  /** The routes of the running services, with who may call them. */
  routes(): RouteAccess[]
  close(): Promise<void>
}

export async function startAllInOne(config: AllInOneConfig): Promise<Program> {
  const log = createLog(config.LOG_LEVEL, 'all-in-one')
  const dataDir = resolve(config.DATA_DIR)
  const maildir = config.MAILDIR === '' ? join(dataDir, 'mail') : config.MAILDIR
  const own = await createOwnIssuer(config, systemRuntime.now)
  const auth = await openAuth(config, { runtime: systemRuntime, log, others: [own.issuer] })
  const database = await openPglite({
    folder: join(dataDir, 'database'),
    flush: config.DATABASE_FLUSH,
  })
  const gateway = await openGateway(config).catch(async (error) => {
    await database.close()
    throw error
  })
  const bus = await createEmbeddedBus({ database, runtime: systemRuntime, topics: TOPICS, log })
  // Each service has its own connection pool, so that calls to the billing service cannot use up the
  // connections that the billing service needs for its own calls.
  const clients = {
    order: createHttpClient(),
    billing: createHttpClient(),
    notification: createHttpClient(),
  }
  const tracers = await openTracers(config, log)
  const callsOf = (name: ServiceName) => {
    const { call } = clients[name]
    return auth ? withServiceToken(call, own.tokensOf(name), log) : call
  }

  // Each service has its own log, metrics and traces, just as in a separate process.
  const parts = (name: ServiceName): ServiceParts =>
    measured({
      database,
      bus,
      http: tracedCalls(callsOf(name), tracers[name]),
      runtime: systemRuntime,
      log: createLog(config.LOG_LEVEL, name),
      telemetry: createTelemetry(name),
      tracer: tracers[name],
      soleProcess: true,
      server: {
        basePath: config.BASE_PATH,
        bodyLimitBytes: config.BODY_LIMIT_BYTES,
        rateLimitPerMinute: config.RATE_LIMIT_PER_MINUTE,
        trustedNetworks: networksOf(config.TRUSTED_PROXIES),
        auth,
      },
    })
  const { url } = gateway
  const urls = { BILLING_URL: url, NOTIFICATION_URL: url, ORDER_URL: url }
  const servers = new Map<ServiceName, HttpServer>()
  const standIns = new Map<ServiceName, HttpServer>()

  /** Unmounts and closes the stand-in that was mounted when the service was switched off. */
  async function removeStandIn(name: ServiceName): Promise<void> {
    await gateway.unmount(stoppedName(name))
    await standIns.get(name)?.close()
    standIns.delete(name)
  }

  const service = (
    name: ServiceName,
    path: 'orders' | 'billing' | 'notification',
    create: (own: ServiceParts) => Promise<Service>,
  ) =>
    switchable({
      start: async () => {
        const own = parts(name)
        const running = await create(own)
        servers.set(name, running.app)
        gateway.mount(name, running.app)
        await removeStandIn(name)
        return async () => {
          servers.delete(name)
          await gateway.unmount(name)
          await running.close()
          const description = { service: path, title: `Trifold ${name}, switched off` }
          const standIn = await createStoppedServer(own, path, description)
          standIns.set(name, standIn)
          gateway.mount(stoppedName(name), standIn)
        }
      },
    })
  const lab: Record<SwitchName, ReturnType<typeof switchable>> = {
    order: service('order', 'orders', (own) => createOrderService(own, { ...config, ...urls })),
    billing: service('billing', 'billing', (own) =>
      createBillingService(own, { ...config, ...urls }),
    ),
    notification: service('notification', 'notification', (own) =>
      createNotificationService(own, { ...config, MAILDIR: maildir }),
    ),
    broker: brokerSwitch(bus),
  }
  gateway.openLab(lab)
  for (const one of [lab.broker, lab.notification, lab.billing, lab.order]) await one.start()

  return {
    url,
    lab,
    database,
    dataDir,
    routes: () => [...servers.values()].flatMap((app) => app.routeTable()),
    async close() {
      // Each service is closed before the services that it calls: the order service calls the billing
      // service, and the billing service calls the notification service. All calls go through the gateway, so
      // the gateway is closed last.
      gateway.drain()
      for (const one of [lab.order, lab.billing, lab.notification]) await one.stop()
      for (const name of [...standIns.keys()]) await removeStandIn(name)
      await Promise.all(Object.values(clients).map((client) => client.close()))
      await gateway.close()
      await auth?.close()
      await bus.close()
      await database.close()
      await Promise.all(Object.values(tracers).map((tracer) => tracer.close()))
    },
  }
}

const brokerSwitch = (bus: Pick<EmbeddedBus, 'pause' | 'resume'>) =>
  switchable({
    start: async () => {
      bus.resume()
      return async () => bus.pause()
    },
  })

async function openTracers(config: AllInOneConfig, log: Log) {
  const open = (service: ServiceName) =>
    openTracer({ service, messagingSystem: 'trifold', log }, config)
  return {
    order: await open('order'),
    billing: await open('billing'),
    notification: await open('notification'),
  }
}
