import { isIPv4 } from 'node:net'
import Type, { type Static, type TObject, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { registerSecret } from '../telemetry/redact.ts'
import { hostList, itemsOf, networkList, pathPrefix } from './config-formats.ts'
import { expectedText, fromText, type PlainSchema } from './schema-text.ts'

/**
 * The configuration of a program is one TypeBox object schema. Its keys are the names of environment
 * variables, and its defaults and descriptions appear in the documents. Error messages leave out a value if
 * the schema of its variable has `secret: true`, or if it contains an @, because the text before an @ may be
 * a password.
 */
export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Reads and validates the configuration. An empty variable counts as unset. Throws one ConfigError that names
 * all invalid variables.
 */
export function readConfig<Schema extends TObject>(
  schema: Schema,
  environment: Environment,
): Readonly<Static<Schema>> {
  const config: Record<string, unknown> = {}
  const problems: string[] = []
  for (const variable of variablesOf(schema)) {
    const text = environment[variable.name] || undefined
    if (text !== undefined && variable.schema.secret === true) registerSecret(text)
    const value = text === undefined ? variable.schema.default : fromText(variable.schema, text)
    if (value === undefined && variable.optional) continue
    const problem = problemOf(variable, text, value)
    if (problem) problems.push(problem)
    else config[variable.name] = value
  }
  if (problems.length > 0) throw new ConfigError(problems)
  return Object.freeze(config) as Readonly<Static<Schema>>
}

const MAX_SHOWN = 200

/** Thrown if the configuration is invalid. The message lists all problems, one per line. */
export class ConfigError extends Error {
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(`the configuration is invalid:\n${problems.map((problem) => `  ${problem}`).join('\n')}`)
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/** The rows of the table of variables in the documents, in the order of the schema. */
export function describeConfig(schema: TObject) {
  return variablesOf(schema).map(({ name, schema }) => ({
    name,
    type: expectedText(schema),
    default: schema.default as string | number | boolean | undefined,
    description: schema.description ?? '',
  }))
}

/** The schema of the variable that sets the log level, with the program's default. */
export function logLevel(fallback: 'info' | 'warn') {
  return Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
    default: fallback,
    description: 'Log lines of this level and above are written.',
  })
}

/** The path prefix that BASE_PATH stands for; empty if it is `/`. */
export function prefixOf(basePath: string): string {
  return basePath === '/' ? '' : basePath
}

/** The host names that ALLOWED_HOSTS stands for, in lower case. */
export function allowedHostsOf(config: {
  readonly ALLOWED_HOSTS: string
  readonly HOST: string
}): ReadonlySet<string> | 'any' {
  const hosts = new Set(itemsOf(config.ALLOWED_HOSTS.toLowerCase()))
  if (hosts.has('*')) return 'any'
  if (hosts.size > 0) return hosts
  const host = config.HOST.toLowerCase()
  return isLoopbackHost(host) ? new Set(['localhost', '127.0.0.1', '[::1]', host]) : 'any'
}

/** Whether an address to listen on can be reached from this machine only. */
export function isLoopbackHost(host: string): boolean {
  return (
    host.toLowerCase() === 'localhost' ||
    host === '::1' ||
    (isIPv4(host) && host.startsWith('127.'))
  )
}

/** Far below 2^31 - 1 ms. A Node timer with a longer delay than that fires after 1 ms. */
const MAX_DURATION_MS = 86_400_000

/** A duration in milliseconds, at most a day unless `maximum` allows more. */
export function durationMs(options: {
  readonly default: number
  readonly minimum: number
  readonly maximum?: number
  readonly description: string
}) {
  return Type.Integer({ maximum: MAX_DURATION_MS, ...options })
}

/**
 * The variables of every program that serves HTTP. Spread them into the program's schema, and give PORT a
 * default.
 */
export const httpConfig = {
  HOST: Type.String({ default: '127.0.0.1', description: 'The address to listen on.' }),
  PORT: Type.Integer({
    minimum: 0,
    maximum: 65535,
    description: 'The port to listen on; 0 means any free port.',
  }),
  BASE_PATH: pathPrefix({
    default: '/otusapp/gur-ok',
    description: 'Every path is served with and without this prefix; / means no prefix.',
  }),
  ALLOWED_HOSTS: hostList({
    default: '',
    description:
      'Host names that are accepted in requests, separated by commas; * accepts any. Empty: localhost, 127.0.0.1 and [::1] if HOST is loopback, otherwise any.',
  }),
  TRUSTED_PROXIES: networkList({
    default: '127.0.0.0/8,::1',
    description:
      'Networks of the proxies and services whose X-Forwarded-For is trusted, such as 10.0.0.0/8, separated by commas. Their own requests have no rate limit.',
  }),
  MAX_CONNECTIONS: Type.Integer({
    default: 2_000,
    minimum: 10,
    maximum: 100_000,
    description: 'How many client connections may be open; further ones get 429.',
  }),
  BODY_LIMIT_BYTES: Type.Integer({
    default: 65536,
    minimum: 1024,
    maximum: 16_777_216,
    description: 'The size limit of a request body.',
  }),
  REQUEST_TIMEOUT_MS: durationMs({
    default: 30_000,
    minimum: 100,
    maximum: 600_000,
    description:
      'How long a request may take to arrive, and how long its response may take after that.',
  }),
  RATE_LIMIT_PER_MINUTE: Type.Integer({
    default: 0,
    minimum: 0,
    maximum: 10_000_000,
    description:
      'Requests per minute and client address; 0 means no limit. Behind a proxy, TRUSTED_PROXIES must list it, or all of its clients share one limit.',
  }),
  LOG_LEVEL: logLevel('info'),
} as const

interface Variable {
  readonly name: string
  readonly schema: PlainSchema
  readonly optional: boolean
}

function variablesOf(schema: TObject): Variable[] {
  const required: readonly string[] = schema.required ?? []
  return Object.entries(schema.properties).map(([name, property]) => ({
    name,
    schema: property as PlainSchema,
    optional: !required.includes(name),
  }))
}

function problemOf({ name, schema }: Variable, text: string | undefined, value: unknown) {
  if (value !== undefined && Value.Check(schema as TSchema, value)) return undefined
  const hint = schema.description ? ` (${schema.description})` : ''
  if (value === undefined) return `${name} is not set; it must be ${expectedText(schema)}${hint}`
  const isShown = text !== undefined && schema.secret !== true && !text.includes('@')
  const given = isShown ? `, not ${JSON.stringify(text.slice(0, MAX_SHOWN))}` : ''
  return `${name} must be ${expectedText(schema)}${given}${hint}`
}
