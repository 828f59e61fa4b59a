import { parseArgs } from 'node:util'

export interface StackOptions {
  /** How many processes of each service. */
  readonly replicas: Readonly<Record<ServiceName, number>>
  /** Where nginx listens, on loopback. */
  readonly port: number
  /** Everything that is kept, and the logs; undefined: data/stack in the repository. */
  readonly folder: string | undefined
  /** Whether Kafka and PostgreSQL run in containers where a daemon answers; undefined: never. */
  readonly docker?: 'auto' | 'never'
}

export const SERVICES = ['order', 'billing', 'notification'] as const
export type ServiceName = (typeof SERVICES)[number]

const MOST_REPLICAS = 9
const DEFAULT_PORT = '8080'

export const USAGE = `Usage: npm run stack -- [options]

Starts Apache Kafka, PostgreSQL, nginx and each service as processes of their own, and stops them all
on Ctrl-C. Their data stays. Kafka and PostgreSQL run in containers if a Docker daemon answers, else
from this machine. KAFKA_BROKERS and DATABASE_URL name servers to use instead; all other variables of
the services are passed on.

  --replicas NAME=N,...   how many of a service: order, billing, notification; 1 to ${MOST_REPLICAS} (1)
  --port PORT             where nginx listens on 127.0.0.1 (${DEFAULT_PORT})
  --folder FOLDER         where data and logs are (data/stack)
  --without-docker        Kafka and PostgreSQL from this machine, also where Docker could run them
  --help                  this text
`

/** undefined: only its usage was asked for. Throws an Error whose message says what is wrong. */
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
      throw new Error(`--replicas: ${name} must be from 1 to ${MOST_REPLICAS}, not "${count}"`)
    }
    replicas[name] = Number(count)
  }
  return replicas
}

function isService(name: string): name is ServiceName {
  return (SERVICES as readonly string[]).includes(name)
}
