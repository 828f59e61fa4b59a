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
/** For a test's reads of the database, which need few connections. */
const CONNECTIONS = 2

/**
 * Starts one process of each service behind nginx, with its own Kafka and PostgreSQL, all in the folder. The
 * settings are the environment of the services.
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

/** Starts a stack for a test, on ports that other tests are unlikely to use at the same time. */
export async function startStackIn(
  folder: string,
  replicas: StackOptions['replicas'],
  environment: Readonly<Record<string, string>>,
  checkoutOf?: CheckoutOf,
): Promise<Stack> {
  const output: string[] = []
  return await startStack({
    replicas,
    environment,
    folder,
    ...(checkoutOf && { checkoutOf }),
    // All ports of the stack are below the ports that the system uses for outgoing connections.
    portOffset: 50 * Math.floor(60 + Math.random() * 380),
    port: await freePorts(9_300 + Math.floor(Math.random() * 600), 1),
    signal: AbortSignal.timeout(START_LIMIT_MS),
    say: (line) => output.push(line),
  }).catch((cause) => {
    throw new Error(`the stack does not start: ${cause.message}\n${output.join('\n')}`, { cause })
  })
}

/** Waits until the service is ready through the gateway, as a customer sees it. */
const ready = (stack: Stack, { service, server }: Replica) =>
  until(() => isReady(stack.url, service), { limitMs: WAIT_LIMIT_MS, ended: server.ended })

function switchOf(stack: Stack, replica: Replica): Switch {
  const { server } = replica
  return switchOfRunning(server, {
    onStart: async () => void (await ready(stack, replica)),
    end: async () => void (await stopWell(replica)),
  })
}

/** Kills the broker, because a broker that is stopped hands over first, and tests need an outage. */
const brokerSwitch = (kafka: Restartable) =>
  switchOfRunning(kafka, { onStart: async () => {}, end: () => kafka.kill() })

/** A switch for a server that is already running when it is first switched on. */
function switchOfRunning(
  server: Restartable,
  { onStart, end }: { readonly onStart: () => Promise<void>; readonly end: () => Promise<void> },
): Switch {
  let runs = true
  return switchable({
    async start() {
      if (!runs) await server.start()
      await onStart()
      return async () => {
        runs = false
        await end()
      }
    },
  })
}

/** Stops a replica with SIGTERM, which must succeed. Resolves with the duration in milliseconds. */
export async function stopWell({ service, server, logFile }: Replica): Promise<number> {
  const startedMs = performance.now()
  const { ended } = server
  await server.stop()
  const code = await ended
  const lines = lastLines(logFile, LOG_LINES)
  assert.equal(code, 0, `${service} ended with code ${code}:\n${lines}`)
  return performance.now() - startedMs
}
