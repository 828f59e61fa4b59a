import Type, { type Static, type TObject, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { registerSecret } from '../telemetry/redact.ts'
import { hostList, itemsOf, networkList, pathPrefix } from './config-formats.ts'
import { expectedText, fromText, type PlainSchema } from './schema-text.ts'

/**
 * Configuration is one TypeBox object schema per program. Its keys are the names of environment
 * variables; its defaults and descriptions are what the documents show. `secret: true` in a
 * variable's schema keeps its value out of every message, and so does an @ in the value: what stands
 * before it may be a password, whatever the variable.
 */
export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Reads the configuration once. An empty variable counts as unset. Throws one ConfigError that names
 * every variable that is wrong.
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

/** Its message lists every problem, one a line. */
export class ConfigError extends Error {
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(`the configuration is wrong:\n${problems.map((problem) => `  ${problem}`).join('\n')}`)
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/** The rows of a document's table of variables, in the schema's order. */
export function describeConfig(schema: TObject) {
  return variablesOf(schema).map(({ name, schema }) => ({
    name,
    type: expectedText(schema),
    default: schema.default as string | number | boolean | undefined,
    description: schema.description ?? '',
  }))
}

/** The variable that says how much is logged, with the default of its program. */
export function logLevel(fallback: 'info' | 'warn') {
  return Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
    default: fallback,
    description: 'The least important log lines that are written.',
  })
}

/** The prefix that BASE_PATH puts before every path: empty where it is `/`. */
export function prefixOf(basePath: string): string {
  return basePath === '/' ? '' : basePath
}

/** The names that ALLOWED_HOSTS stands for, in lower case. */
export function allowedHostsOf(config: {
  readonly ALLOWED_HOSTS: string
  readonly HOST: string
}): ReadonlySet<string> | 'any' {
  const hosts = new Set(itemsOf(config.ALLOWED_HOSTS.toLowerCase()))
  if (hosts.has('*')) return 'any'
  if (hosts.size > 0) return hosts
  const host = config.HOST.toLowerCase()
  const isLoopback = host === 'localhost' || host === '::1' || host.startsWith('127.')
  return isLoopback ? new Set(['localhost', '127.0.0.1', '[::1]', host]) : 'any'
}

/** Far below the longest wait of a timer, 2^31 - 1 ms: a longer one fires after 1 ms. */
const MAX_DURATION_MS = 86_400_000

/** A time in milliseconds, at most a day unless the use of it can handle more. */
export function durationMs(options: {
  readonly default: number
  readonly minimum: number
  readonly maximum?: number
  readonly description: string
}) {
  return Type.Integer({ maximum: MAX_DURATION_MS, ...options })
}

/** What every program that serves HTTP reads; spread into its schema. PORT has no default here. */
export const httpConfig = {
  HOST: Type.String({ default: '127.0.0.1', description: 'The address to listen on.' }),
  PORT: Type.Integer({
    minimum: 0,
    maximum: 65535,
    description: 'The port to listen on; 0 takes any free one.',
  }),
  BASE_PATH: pathPrefix({
    default: '/otusapp/gur-ok',
    description: 'Every path is served with and without this prefix; / means none.',
  }),
  ALLOWED_HOSTS: hostList({
    default: '',
    description:
      'Host names that requests may name, separated by commas; * is any. Empty: on loopback localhost, 127.0.0.1 and [::1], elsewhere any.',
  }),
  TRUSTED_PROXIES: networkList({
    default: '127.0.0.0/8,::1',
    description:
      'Networks of the proxies and services whose X-Forwarded-For is believed, such as 10.0.0.0/8, separated by commas. They themselves have no rate limit.',
  }),
  MAX_CONNECTIONS: Type.Integer({
    default: 2_000,
    minimum: 10,
    maximum: 100_000,
    description: 'The most open connections of clients; more are answered 429.',
  }),
  BODY_LIMIT_BYTES: Type.Integer({
    default: 65536,
    minimum: 1024,
    maximum: 16_777_216,
    description: 'The largest request body.',
  }),
  REQUEST_TIMEOUT_MS: durationMs({
    default: 30_000,
    minimum: 100,
    maximum: 600_000,
    description: 'How long a request may take to arrive, and then to be answered.',
  }),
  RATE_LIMIT_PER_MINUTE: Type.Integer({
    default: 0,
    minimum: 0,
    maximum: 10_000_000,
    description:
      'Requests per minute and client address; 0 sets no limit. Behind a proxy, TRUSTED_PROXIES must name it, or all of its clients share one limit.',
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
