import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type Switch, switchable } from '../../apps/all-in-one/lab.ts'
import { createKafkaBus } from '../../messaging/kafka/bus.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { until } from '../../platform/async/until.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { lastLines } from '../../tools/servers/kept-process.ts'
import { freePorts } from '../../tools/servers/ports.ts'
import type { Restartable } from '../../tools/servers/restartable.ts'
import type { StackOptions } from '../../tools/stack/options.ts'
import { type CheckoutOf, isReady, type Replica } from '../../tools/stack/services.ts'
import { type Stack, startStack } from '../../tools/stack/stack.ts'
import { createClient } from './client.ts'
import { WAIT_LIMIT_MS } from './world.ts'

const START_LIMIT_MS = 180_000
const ONE_OF_EACH = { order: 1, billing: 1, notification: 1 } as const
const LOG_LINES = 20
/** A test looks inside; it does no work there. */
const CONNECTIONS = 2

/**
 * One process of each service behind nginx, with a Kafka and a PostgreSQL of their own, all in the
 * folder. The settings are the environment of the services.
 */
export async function startOnStack(folder: string, settings: Readonly<Record<string, string>>) {
  const stack = await startStackIn(folder, ONE_OF_EACH, settings)
  const open = (url: string) => openPostgres({ url, maxConnections: CONNECTIONS })
  const urls = stack.databaseUrls
  const [orders, billing, notification] = await Promise.all([
    open(urls.order),
    open(urls.billing),
    open(urls.notification),
  ])
  const switches = Object.fromEntries(
    stack.replicas.map((replica) => [replica.service, switchOf(stack, replica)]),
  ) as Record<Replica['service'], Switch>
  const lab = { ...switches, broker: brokerSwitch(stack.kafka!) }
  for (const one of Object.values(lab)) await one.start()

  return {
    ...createClient(stack.url),
    lab,
    databases: { orders, billing, notification },
    databaseUrls: urls,
    log: {},
    maildir: join(folder, 'mail'),
    openBus: () =>
      createKafkaBus({
        brokers: stack.brokers.split(','),
        clientId: 'test',
        runtime: systemRuntime,
        log: createLog('silent', 'test'),
      }),
    killServices: async () => {
      await Promise.all(stack.replicas.map(({ server }) => server.kill()))
    },
    stopServices: async () => {
      await Promise.all(stack.replicas.map(stopWell))
    },
    startServices: async () => {
      await Promise.all(stack.replicas.map(({ server }) => server.start()))
      await Promise.all(stack.replicas.map((replica) => ready(stack, replica)))
    },
    async close() {
      await Promise.all([orders.close(), billing.close(), notification.close()])
      await stack.close()
    },
  }
}

/** A stack of a test, on ports that others are unlikely to look at in the same moment. */
export async function startStackIn(
  folder: string,
  replicas: StackOptions['replicas'],
  environment: Readonly<Record<string, string>>,
  checkoutOf?: CheckoutOf,
): Promise<Stack> {
  const said: string[] = []
  return await startStack({
    ...{ replicas, environment, folder },
    ...(checkoutOf && { checkoutOf }),
    // Below the ports of outgoing connections, the highest of the usual ones included.
    portOffset: 50 * Math.floor(60 + Math.random() * 380),
    port: await freePorts(9_300 + Math.floor(Math.random() * 600), 1),
    signal: AbortSignal.timeout(START_LIMIT_MS),
    say: (line) => said.push(line),
  }).catch((cause) => {
    throw new Error(`the stack does not start: ${cause.message}\n${said.join('\n')}`, { cause })
  })
}

/** Through the gateway, as a customer would find it. */
const ready = (stack: Stack, { service, server }: Replica) =>
  until(() => isReady(stack.url, service), { limitMs: WAIT_LIMIT_MS, ended: server.ended })

function switchOf(stack: Stack, replica: Replica): Switch {
  const { server } = replica
  return switchOfRunning(server, {
    begun: async () => void (await ready(stack, replica)),
    end: async () => void (await stopWell(replica)),
  })
}

/** A broker that is told to stop hands over first; what tests look for is one that is gone. */
const brokerSwitch = (kafka: Restartable) =>
  switchOfRunning(kafka, { begun: async () => {}, end: () => kafka.kill() })

/** Its first start finds that the server runs already. */
function switchOfRunning(
  server: Restartable,
  { begun, end }: { readonly begun: () => Promise<void>; readonly end: () => Promise<void> },
): Switch {
  let runs = true
  return switchable({
    async start() {
      if (!runs) await server.start()
      await begun()
      return async () => {
        runs = false
        await end()
      }
    },
  })
}

/** Lets a replica end by SIGTERM, and tells how many milliseconds that took. */
export async function stopWell({ service, server, logFile }: Replica): Promise<number> {
  const begunMs = performance.now()
  const { ended } = server
  await server.stop()
  const code = await ended
  const said = lastLines(logFile, LOG_LINES)
  assert.equal(code, 0, `${service} ended with code ${code}:\n${said}`)
  return performance.now() - begunMs
}
