import { join, resolve } from 'node:path'
import { createEmbeddedBus } from '../../messaging/embedded-bus.ts'
import { measured, type Service, type ServiceParts } from '../../messaging/service.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { networksOf } from '../../platform/config-formats.ts'
import type { Database } from '../../platform/database.ts'
import { createHttpClient, tracedCalls } from '../../platform/http-client.ts'
import { openPglite } from '../../platform/pglite.ts'
import { type Log, systemRuntime } from '../../platform/runtime.ts'
import { createLog, createTelemetry } from '../../platform/telemetry.ts'
import { openTracer } from '../../platform/tracing-start.ts'
import { createBillingService } from '../../services/billing/service.ts'
import { createNotificationService } from '../../services/notification/service.ts'
import { createOrderService } from '../../services/order/service.ts'
import type { AllInOneConfig } from './config.ts'
import { openGateway } from './gateway.ts'
import { type Lab, type SwitchName, switchable } from './lab.ts'

/** The three services, their broker, their database and the gateway, in this process. */
export interface Program {
  /** Where the gateway answers. */
  readonly url: string
  readonly lab: Lab
  /** The one database, with a schema per service and one for the bus. */
  readonly database: Database
  readonly dataDir: string
  close(): Promise<void>
}

type ServiceName = 'order' | 'billing' | 'notification'

export async function startAllInOne(config: AllInOneConfig): Promise<Program> {
  const dataDir = resolve(config.DATA_DIR)
  const maildir = config.MAILDIR === '' ? join(dataDir, 'mail') : config.MAILDIR
  const database = await openPglite({
    folder: join(dataDir, 'database'),
    flush: config.DATABASE_FLUSH,
  })
  const log = createLog(config.LOG_LEVEL, 'all-in-one')
  const gateway = await openGateway(config).catch(async (error) => {
    await database.close()
    throw error
  })
  const bus = await createEmbeddedBus({ database, runtime: systemRuntime, topics: TOPICS, log })
  // One pool each: calls to billing must not take the connections that billing's own calls wait for.
  const clients = {
    order: createHttpClient(),
    billing: createHttpClient(),
    notification: createHttpClient(),
  }
  const tracers = await openTracers(config, log)

  // Each service has its own log, metrics and traces, as it would in a process of its own.
  const parts = (name: ServiceName): ServiceParts =>
    measured({
      database,
      bus,
      http: tracedCalls(clients[name].call, tracers[name]),
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
      },
    })
  const { url } = gateway
  const urls = { BILLING_URL: url, NOTIFICATION_URL: url, ORDER_URL: url }
  const service = (name: ServiceName, create: () => Promise<Service>) =>
    switchable({
      start: async () => {
        const running = await create()
        gateway.mount(name, running.app)
        return async () => {
          await gateway.unmount(name)
          await running.close()
        }
      },
    })
  const lab: Record<SwitchName, ReturnType<typeof switchable>> = {
    order: service('order', () => createOrderService(parts('order'), { ...config, ...urls })),
    billing: service('billing', () =>
      createBillingService(parts('billing'), { ...config, ...urls }),
    ),
    notification: service('notification', () =>
      createNotificationService(parts('notification'), { ...config, MAILDIR: maildir }),
    ),
    broker: switchable({
      start: async () => {
        bus.resume()
        return async () => bus.pause()
      },
    }),
  }
  gateway.openLab(lab)
  for (const one of [lab.broker, lab.notification, lab.billing, lab.order]) await one.start()

  return {
    url,
    lab,
    database,
    dataDir,
    async close() {
      // Callers first: order calls billing, billing calls notification. They do so through the
      // gateway, which therefore stays until the last of them is done.
      gateway.drain()
      for (const one of [lab.order, lab.billing, lab.notification]) await one.stop()
      await Promise.all(Object.values(clients).map((client) => client.close()))
      await gateway.close()
      await bus.close()
      await database.close()
      await Promise.all(Object.values(tracers).map((tracer) => tracer.close()))
    },
  }
}

async function openTracers(config: AllInOneConfig, log: Log) {
  const open = (service: ServiceName) =>
    openTracer({ service, messagingSystem: 'trifold', log }, config)
  return {
    order: await open('order'),
    billing: await open('billing'),
    notification: await open('notification'),
  }
}
