import { join } from 'node:path'
import type { InteractionStyle } from '../../../contracts/style.ts'
import { freePorts } from '../../../tools/servers/ports.ts'
import type { Restartable } from '../../../tools/servers/restartable.ts'
import type { ServiceName } from '../../../tools/stack/options.ts'
import { isReady, replicasReady } from '../../../tools/stack/services.ts'
import { type Dependency, type Stack, startStack } from '../../../tools/stack/stack.ts'
import { startProxy, type TcpProxy } from './proxy.ts'
import type { Link, ProcessTarget, ReplicaTarget } from './schedule.ts'
import { openSessions, type Sessions } from './sessions.ts'
import { mountSmallDisk, moveDatabase, type SmallDisk } from './small-disk.ts'
import { wrongClock } from './wrong-clock.ts'

/** The whole stack with two replicas of each service, a proxy on every link, and a disk that can be filled. */
export interface FragileStack {
  readonly stack: Stack
  /** The URL that customers use; it goes through the proxy of nginx. */
  readonly url: string
  readonly processes: ReadonlyMap<ProcessTarget, Restartable>
  readonly proxies: ReadonlyMap<Link, TcpProxy>
  /** The disk with the tables of one service, or the reason why there is none. */
  readonly disk: SmallDisk | string
  readonly sessions: Sessions
  /** Sets how many milliseconds the clock of a replica is ahead after its next start. */
  setClock(replica: ReplicaTarget, offsetMs: number): void
  /** Rejects with the reason if the replica is not ready. */
  isReady(replica: ReplicaTarget): Promise<boolean>
  close(): Promise<void>
}

export interface FragileStackOptions {
  readonly folder: string
  readonly style: InteractionStyle
  /** The service that has its tables on the small disk. */
  readonly onDisk: ServiceName
  readonly signal: AbortSignal
  readonly say: (line: string) => void
}

const TWO_OF_EACH = { order: 2, billing: 2, notification: 2 } as const
const PORT = 8_700
/** Avoids the ports of a normal stack and of the tests. */
const PORT_OFFSET = 1_200

/**
 * Shorter than the defaults, so that within a minute an order can be resent several times and can pass its
 * deadline. The stack then comes to rest seconds after the last fault, not minutes.
 */
export const SETTINGS = {
  resendAfterMs: 1_000,
  orderDeadlineMs: 45_000,
} as const

const NAMES = { kafka: 'Kafka', postgres: 'PostgreSQL', gateway: 'nginx' } as const

export async function startFragileStack(options: FragileStackOptions): Promise<FragileStack> {
  const { folder, style, onDisk, signal, say } = options
  const proxies = new Map<Link, TcpProxy>()
  const clocks = new Map<string, number>()
  const closers: (() => unknown)[] = []
  async function close(): Promise<void> {
    for (const closer of closers.reverse().splice(0)) await closer()
  }
  async function through(link: Link, port: number): Promise<number> {
    const proxy = await startProxy(port)
    closers.push(proxy.close)
    proxies.set(link, proxy)
    return proxy.port
  }
  try {
    const disk = mountSmallDisk(join(folder, 'small-disk'))
    // Closers run in reverse, so the disk is unmounted after PostgreSQL has stopped.
    if (typeof disk !== 'string') closers.push(disk.close)
    const stack = await startStack({
      folder,
      replicas: TWO_OF_EACH,
      docker: 'never',
      signal,
      say,
      port: await freePorts(PORT, 1),
      portOffset: PORT_OFFSET,
      environment: {
        INTERACTION_STYLE: style,
        RESEND_AFTER_MS: String(SETTINGS.resendAfterMs),
        DEPOSIT_RESEND_AFTER_MS: String(SETTINGS.resendAfterMs),
        ORDER_DEADLINE_MS: String(SETTINGS.orderDeadlineMs),
      },
      environmentOf({ service, number }) {
        const offsetMs = clocks.get(`${service} ${number}`)
        return { NODE_OPTIONS: offsetMs ? wrongClock(offsetMs) : undefined }
      },
      proxyFor: (from: ServiceName, to: Dependency, port: number) =>
        // The notification service calls no other service, so it has no link to nginx.
        from === 'notification' && to === 'gateway'
          ? Promise.resolve(port)
          : through(`${from} → ${NAMES[to]}` as Link, port),
    })
    closers.push(stack.close)
    const gatewayPort = Number(new URL(stack.url).port)
    const port = await through('customers → nginx', gatewayPort)
    if (typeof disk !== 'string') await moveToDisk(stack, onDisk, disk, signal)
    const sessions = await openSessions(stack.databaseUrls)
    closers.push(sessions.close)
    return {
      stack,
      proxies,
      disk,
      sessions,
      close,
      setClock: (replica, offsetMs) => clocks.set(replica, offsetMs),
      isReady(name) {
        const own = stack.replicas.find(({ service, number }) => name === `${service} ${number}`)!
        return isReady(own.url, own.service)
      },
      url: `http://127.0.0.1:${port}`,
      processes: processesOf(stack),
    }
  } catch (error) {
    await close()
    throw error
  }
}

async function moveToDisk(
  stack: Stack,
  service: ServiceName,
  disk: SmallDisk,
  signal: AbortSignal,
): Promise<void> {
  const own = stack.replicas.filter((replica) => replica.service === service)
  await Promise.all(own.map(({ server }) => server.stop()))
  const cluster = join(stack.folder, 'postgres', 'cluster')
  await moveDatabase(stack.databaseUrls[service], disk, cluster)
  await Promise.all(own.map(({ server }) => server.start()))
  await replicasReady(own, signal, () => undefined)
}

function processesOf({ kafka, postgres, replicas }: Stack): Map<ProcessTarget, Restartable> {
  return new Map<ProcessTarget, Restartable>([
    ['Kafka', kafka!],
    ['PostgreSQL', postgres!],
    ...replicas.map(({ service, number, server }): [ProcessTarget, Restartable] => [
      `${service} ${number}` as ProcessTarget,
      server,
    ]),
  ])
}
