import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import type { SASLOptions } from '@platformatic/kafka'
import Type, { type Static } from 'typebox'
import { ConfigError, isLoopbackHost } from '../../platform/process/config.ts'
import { itemsOf } from '../../platform/process/config-formats.ts'
import { registerSecret } from '../../platform/telemetry/redact.ts'

/**
 * Options for connections to Kafka, to be spread into the options of each client. If empty, clients connect
 * in plain text without a login.
 */
export interface KafkaSecurity {
  readonly tls?: ConnectionOptions
  readonly tlsServerName?: string | boolean
  readonly sasl?: SASLOptions
}

/** The variables for TLS and SASL, to be spread into the schema of a program that uses Kafka. */
export const kafkaSecurityConfig = {
  KAFKA_TLS: Type.Boolean({
    default: false,
    description: 'Whether connections to Kafka use TLS.',
  }),
  KAFKA_TLS_CA_FILE: Type.String({
    default: '',
    description:
      "A PEM file with the certificates that may sign the brokers' certificates. Empty: those that Node.js trusts.",
  }),
  KAFKA_TLS_CERT_FILE: Type.String({
    default: '',
    description: 'A PEM file with the certificate of this program, for brokers that require one.',
  }),
  KAFKA_TLS_KEY_FILE: Type.String({
    default: '',
    description: 'A PEM file with the private key that belongs to KAFKA_TLS_CERT_FILE.',
  }),
  KAFKA_TLS_SERVER_NAME: Type.String({
    default: '',
    description: "The host name in the brokers' certificates. Empty: the name in the address.",
  }),
  KAFKA_SASL_MECHANISM: Type.Enum(
    ['none', 'PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512', 'OAUTHBEARER'],
    { default: 'none', description: 'How this program logs in to Kafka.' },
  ),
  KAFKA_SASL_USERNAME: Type.String({
    default: '',
    description: 'The user name for PLAIN and SCRAM.',
  }),
  KAFKA_SASL_PASSWORD_FILE: Type.String({
    default: '',
    description: 'A file with the password for PLAIN and SCRAM; read at every login.',
  }),
  KAFKA_SASL_TOKEN_FILE: Type.String({
    default: '',
    description: 'A file with the token for OAUTHBEARER; read at every login.',
  }),
} as const

const schema = Type.Object(kafkaSecurityConfig)
export type KafkaSecurityConfig = Static<typeof schema>

/**
 * Derives the options of the clients. Throws one ConfigError that names all variables that are missing, contradict
 * each other or name files that cannot be read.
 */
export function kafkaSecurity(config: KafkaSecurityConfig, brokers: string): KafkaSecurity {
  const problems = [...tlsProblems(config), ...saslProblems(config, brokers), ...unreadable(config)]
  if (problems.length > 0) throw new ConfigError(problems)
  return { ...tlsOf(config, brokers), ...saslOf(config) }
}

function tlsOf(config: KafkaSecurityConfig, brokers: string): KafkaSecurity {
  if (!config.KAFKA_TLS) return {}
  const tls: ConnectionOptions = {}
  rereadForEachConnection(tls, 'ca', config.KAFKA_TLS_CA_FILE)
  rereadForEachConnection(tls, 'cert', config.KAFKA_TLS_CERT_FILE)
  rereadForEachConnection(tls, 'key', config.KAFKA_TLS_KEY_FILE)
  // With `true`, the client sends the host name of each broker. TLS allows no addresses there.
  const sendsHost = itemsOf(brokers).every((broker) => isIP(hostOf(broker)) === 0)
  return { tls, tlsServerName: config.KAFKA_TLS_SERVER_NAME || sendsHost }
}

/**
 * Defines the option as a getter. The client copies the options for each connection, so a renewed certificate is used
 * from the next connection on. If the file cannot be read, its last content is used.
 */
function rereadForEachConnection(
  tls: ConnectionOptions,
  option: 'ca' | 'cert' | 'key',
  path: string,
): void {
  if (path === '') return
  let last = readFileSync(path)
  const get = () => {
    try {
      last = readFileSync(path)
    } catch {}
    return last
  }
  Object.defineProperty(tls, option, { enumerable: true, get })
}

function saslOf(config: KafkaSecurityConfig): KafkaSecurity {
  const { KAFKA_SASL_MECHANISM: mechanism, KAFKA_SASL_USERNAME: username } = config
  if (mechanism === 'none') return {}
  if (mechanism === 'OAUTHBEARER') {
    return { sasl: { mechanism, token: () => secretIn(config.KAFKA_SASL_TOKEN_FILE) } }
  }
  const password = async () => {
    const current = await secretIn(config.KAFKA_SASL_PASSWORD_FILE)
    registerSecret(current)
    return current
  }
  return { sasl: { mechanism, username, password } }
}

/** Editors end a file with a line break, which is not part of the secret. */
const secretIn = async (path: string) => (await readFile(path, 'utf8')).trimEnd()

function tlsProblems(config: KafkaSecurityConfig): string[] {
  const problems: string[] = []
  const names = ['CA_FILE', 'CERT_FILE', 'KEY_FILE', 'SERVER_NAME'] as const
  for (const name of names) {
    if (config[`KAFKA_TLS_${name}`] !== '' && !config.KAFKA_TLS) {
      problems.push(`KAFKA_TLS_${name} has no effect without KAFKA_TLS=true`)
    }
  }
  if ((config.KAFKA_TLS_CERT_FILE === '') !== (config.KAFKA_TLS_KEY_FILE === '')) {
    problems.push('KAFKA_TLS_CERT_FILE and KAFKA_TLS_KEY_FILE must be set together')
  }
  return problems
}

function saslProblems(config: KafkaSecurityConfig, brokers: string): string[] {
  const mechanism = config.KAFKA_SASL_MECHANISM
  const needed = NEEDED[mechanism] ?? ['KAFKA_SASL_USERNAME', 'KAFKA_SASL_PASSWORD_FILE']
  const problems: string[] = SASL_VALUES.flatMap((name) => {
    const isSet = config[name] !== ''
    if (isSet && !needed.includes(name))
      return `${name} has no effect on the mechanism ${mechanism}`
    if (!isSet && needed.includes(name)) return `${mechanism} needs ${name}`
    return []
  })
  if (
    mechanism === 'PLAIN' &&
    !config.KAFKA_TLS &&
    !itemsOf(brokers).map(hostOf).every(isLoopbackHost)
  ) {
    problems.push('PLAIN sends the password unencrypted: set KAFKA_TLS=true, or use SCRAM-SHA-512')
  }
  return problems
}

const SASL_VALUES = [
  'KAFKA_SASL_USERNAME',
  'KAFKA_SASL_PASSWORD_FILE',
  'KAFKA_SASL_TOKEN_FILE',
] as const
/** The variables that a mechanism needs; mechanisms that are not listed need a user name and a password. */
const NEEDED: Partial<Record<string, readonly string[]>> = {
  none: [],
  OAUTHBEARER: ['KAFKA_SASL_TOKEN_FILE'],
}

/** The host in `host:port`, without the brackets of an IPv6 address. */
function hostOf(broker: string): string {
  return new URL(`kafka://${broker}`).hostname.replace(/^\[|\]$/g, '')
}

function unreadable(config: KafkaSecurityConfig): string[] {
  return Object.entries(config).flatMap(([name, path]) => {
    if (!name.endsWith('_FILE') || !name.startsWith('KAFKA_') || path === '') return []
    try {
      readFileSync(String(path))
      return []
    } catch (error) {
      return `${name} cannot be read: ${(error as Error).message}`
    }
  })
}
