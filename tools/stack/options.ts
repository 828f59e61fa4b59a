import { parseArgs } from 'node:util'

export interface StackOptions {
  /** How many processes of each service to start. */
  readonly replicas: Readonly<Record<ServiceName, number>>
  /** The loopback port of nginx. */
  readonly port: number
  /** The folder for data and logs; undefined means data/stack in the repository. */
  readonly folder: string | undefined
  /**
   * With `auto`, Kafka and PostgreSQL run in containers if a Docker daemon responds. Undefined means `never`.
   */
  readonly docker?: 'auto' | 'never'
}

export const SERVICES = ['order', 'billing', 'notification'] as const
export type ServiceName = (typeof SERVICES)[number]

const MAX_REPLICAS = 9
const DEFAULT_PORT = '8080'

export const USAGE = `Usage: npm run stack -- [options]

Starts Apache Kafka, PostgreSQL, nginx and each service as processes of their own, and stops them all on
Ctrl-C. Their data is kept. Kafka and PostgreSQL run in containers if a Docker daemon answers, otherwise
from programs installed on this machine. KAFKA_BROKERS and DATABASE_URL name servers to use instead; all
other environment variables are passed to the services.

  --replicas NAME=N,...   number of processes of order, billing or notification, 1 to ${MAX_REPLICAS} (1)
  --port PORT             port of nginx on 127.0.0.1 (${DEFAULT_PORT})
  --folder FOLDER         folder for data and logs (data/stack)
  --without-docker        run Kafka and PostgreSQL from this machine even if Docker is available
  --help                  print this text
`

/** Returns undefined for --help. Throws an Error that says which option is wrong. */
export function stackOptions(args: readonly string[]): StackOptions | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      replicas: { type: 'string', multiple: true, default: [] },
      port: { type: 'string', default: DEFAULT_PORT },
      folder: { type: 'string' },
      'without-docker': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  const port = /^\d{1,5}$/.test(values.port) ? Number(values.port) : 0
  if (port < 1 || port > 65_535) throw new Error(`--port must be from 1 to 65535: ${values.port}`)
  return {
    replicas: replicasOf(values.replicas.join(',')),
    port,
    folder: values.folder,
    docker: values['without-docker'] ? 'never' : 'auto',
  }
}

function replicasOf(text: string): Record<ServiceName, number> {
  const replicas = { order: 1, billing: 1, notification: 1 }
  for (const part of text.split(',').filter(Boolean)) {
    const [name = '', count = ''] = part.split('=').map((word) => word.trim())
    if (!isService(name)) throw new Error(`--replicas: there is no service "${name}"`)
    if (!/^[1-9]$/.test(count)) {
      throw new Error(`--replicas: ${name} must be from 1 to ${MAX_REPLICAS}, not "${count}"`)
    }
    replicas[name] = Number(count)
  }
  return replicas
}

function isService(name: string): name is ServiceName {
  return (SERVICES as readonly string[]).includes(name)
}
