import { join } from 'node:path'
import type { InteractionStyle } from '../../../contracts/style.ts'
import { freePorts } from '../../../tools/servers/ports.ts'
import type { Restartable } from '../../../tools/servers/restartable.ts'
import type { ServiceName } from '../../../tools/stack/options.ts'
import { isReady, replicasReady } from '../../../tools/stack/services.ts'
import { type Needed, type Stack, startStack } from '../../../tools/stack/stack.ts'
import { startProxy, type TcpProxy } from './proxy.ts'
import type { ProcessTarget, ReplicaTarget, Way } from './schedule.ts'
import { openSessions, type Sessions } from './sessions.ts'
import { mountSmallDisk, moveDatabase, type SmallDisk } from './small-disk.ts'
import { wrongClock } from './wrong-clock.ts'

/** The whole stack, two of each service, with a proxy on every way and a disk that can be full. */
export interface FragileStack {
  readonly stack: Stack
  /** Where customers come in. */
  readonly url: string
  readonly processes: ReadonlyMap<ProcessTarget, Restartable>
  readonly ways: ReadonlyMap<Way, TcpProxy>
  /** Holds the tables of one service; or why there is none. */
  readonly disk: SmallDisk | string
  readonly sessions: Sessions
  /** How far the clock of a replica is ahead, from its next start on; in milliseconds. */
  setClock(replica: ReplicaTarget, offsetMs: number): void
  /** Throws what keeps the replica from being ready. */
  isReady(replica: ReplicaTarget): Promise<boolean>
  close(): Promise<void>
}

export interface FragileStackOptions {
  readonly folder: string
  readonly style: InteractionStyle
  /** Whose tables are on the small disk. */
  readonly onDisk: ServiceName
  readonly signal: AbortSignal
  readonly say: (line: string) => void
}

const TWO_OF_EACH = { order: 2, billing: 2, notification: 2 } as const
const PORT = 8_700
/** Beside a stack of the usual ports, and those of tests. */
const PORT_OFFSET = 1_200

/**
 * Less patient than usual, so that within a minute an order may be asked for again more than once, and may
 * pass its deadline; from the last fault to rest it then takes seconds, and not minutes.
 */
export const SETTINGS = {
  resendAfterMs: 1_000,
  orderDeadlineMs: 45_000,
} as const

const NAMES = { kafka: 'Kafka', postgres: 'PostgreSQL', gateway: 'nginx' } as const

export async function startFragileStack(options: FragileStackOptions): Promise<FragileStack> {
  const { folder, style, onDisk, signal, say } = options
  const ways = new Map<Way, TcpProxy>()
  const clocks = new Map<string, number>()
  const closers: (() => unknown)[] = []
  async function close(): Promise<void> {
    for (const closer of closers.reverse().splice(0)) await closer()
  }
  async function through(way: Way, port: number): Promise<number> {
    const proxy = await startProxy(port)
    closers.push(proxy.close)
    ways.set(way, proxy)
    return proxy.port
  }
  try {
    const disk = mountSmallDisk(join(folder, 'small-disk'))
    // It goes after the server that has tables on it.
    if (typeof disk !== 'string') closers.push(disk.close)
    const stack = await startStack({
      ...{ folder, replicas: TWO_OF_EACH, docker: 'never', signal, say },
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
      between: (from: ServiceName, to: Needed, port: number) =>
        // Notification calls no service, and is on no way to nginx.
        from === 'notification' && to === 'gateway'
          ? Promise.resolve(port)
          : through(`${from} → ${NAMES[to]}` as Way, port),
    })
    closers.push(stack.close)
    const gatewayPort = Number(new URL(stack.url).port)
    const port = await through('customers → nginx', gatewayPort)
    if (typeof disk !== 'string') await moveToDisk(stack, onDisk, disk, signal)
    const sessions = await openSessions(stack.databaseUrls)
    closers.push(sessions.close)
    return {
      ...{ stack, ways, disk, sessions, close },
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
