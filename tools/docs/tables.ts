import Type, { type TObject } from 'typebox'
import { allInOneConfig } from '../../apps/all-in-one/config.ts'
import { styleConfig } from '../../chassis/flow-config.ts'
import { serversConfig } from '../../chassis/service-process.ts'
import type { Access } from '../../contracts/access.ts'
import { BALANCE_CHANGED, EVENTS } from '../../contracts/events.ts'
import { PROBLEMS } from '../../contracts/problems.ts'
import { isStyle, STYLES } from '../../contracts/style.ts'
import { authConfig } from '../../platform/auth/config.ts'
import { describeConfig, httpConfig } from '../../platform/process/config.ts'
import { METRICS } from '../../platform/telemetry/telemetry.ts'
import { tracingConfig } from '../../platform/telemetry/tracing-start.ts'
import { billingConfig } from '../../services/billing/config.ts'
import { notificationConfig } from '../../services/notification/config.ts'
import { orderConfig } from '../../services/order/config.ts'
import type { NewmanFolder } from './newman.ts'
import type { Language } from './pages.ts'
import type { Structure } from './pictures/structure.ts'

/**
 * The tables in the documents, as Markdown, each generated from the code that it describes. `say` translates
 * text that is not code into the language of the document.
 */
export type Say = (text: string) => string

/** The parts of an OpenAPI document that the tables use. */
export interface OpenApi {
  readonly info: { readonly title: string }
  readonly paths: Readonly<
    Record<
      string,
      Readonly<
        Record<
          string,
          { readonly summary?: string; readonly tags?: string[]; readonly 'x-access'?: Access }
        >
      >
    >
  >
}

/**
 * A table for each group of variables, by the name of the table on the page. Variables that are in no other
 * group belong to the group of the program.
 */
export function configurationTables(say: Say): Record<string, string> {
  const groups = Map.groupBy(variablesOf(allInOneConfig), ({ name }) => {
    const group = CONFIGURATION_GROUPS.find(([, config]) => name in config)
    return group?.[0] ?? 'configuration-program'
  })
  groups.set('configuration-servers', variablesOf(Type.Object(serversConfig)))
  return Object.fromEntries([...groups].map(([name, rows]) => [name, variablesTable(rows, say)]))
}

/**
 * A variable belongs to the first group that contains it. The variables of the style are also in the
 * configurations of the order and billing services.
 */
const CONFIGURATION_GROUPS: readonly (readonly [name: string, config: object])[] = [
  ['configuration-style', styleConfig],
  ['configuration-orders', orderConfig],
  ['configuration-orders', billingConfig],
  ['configuration-email', notificationConfig],
  ['configuration-http', httpConfig],
  ['configuration-tracing', tracingConfig],
  ['configuration-identity', authConfig],
]

function variablesTable(group: ReturnType<typeof variablesOf>, say: Say): string {
  const rows = group.map(({ name, type, value, description }) => [
    code(name),
    value === '' ? say('empty') : code(value),
    valuesOf(type, say),
    say(description),
  ])
  return table(['variable', 'default', 'values', 'description'].map(say), rows)
}

/**
 * The text of `.env.example`: every variable with its default, commented out, so that the file documents
 * everything and sets nothing.
 */
export function environmentExample(): string {
  const entries = variablesOf(allInOneConfig).map(({ name, type, value, description }) => {
    const values = type === 'text' ? '' : `# Values: ${type}\n`
    return `# ${description}\n${values}#${name}=${quoted(value)}\n`
  })
  return [EXAMPLE_HEAD, ...entries].join('\n')
}

const EXAMPLE_HEAD = `# All environment variables of the program, with their defaults. Written by \`npm run docs\`.
# To use it, copy it to .env and change what you need. Programs read .env from the folder that they are
# started in. Variables that are already set take precedence.
`

/** One row for each event. The services that send and read the event are taken from the recordings. */
export function eventsTable(recorded: Structure, say: Say): string {
  const { sends, reads } = partiesOf(recorded)
  const events = Object.entries(EVENTS).map(([name, { topic, summary, schema }]) => [
    code(topic),
    code(name),
    namesOf(sends.get(name), say),
    namesOf(reads.get(name), say),
    fieldsOf(schema),
    say(summary),
  ])
  const balance = [
    ...['`balance`', '`BALANCE_CHANGED`', namesOf(sends.get('BALANCE_CHANGED'), say)],
    namesOf(reads.get('BALANCE_CHANGED'), say),
    ...[fieldsOf(BALANCE_CHANGED), say(BALANCE_SUMMARY)],
  ]
  const head = ['topic', 'event', 'sent by', 'read by', 'body', 'meaning']
  return table(head.map(say), [...events, balance])
}

/** One row for each topic. */
export function topicsTable(recorded: Structure, say: Say): string {
  const { sends, reads } = partiesOf(recorded)
  const events = [
    ...Object.entries(EVENTS).map(([name, { topic }]) => ({ name, topic: topic as string })),
    { name: 'BALANCE_CHANGED', topic: 'balance' },
  ]
  const partiesTo = (names: readonly string[], parties: ReadonlyMap<string, Set<string>>) =>
    namesOf(new Set(names.flatMap((name) => [...(parties.get(name) ?? [])])), say)
  const rows = [...Map.groupBy(events, ({ topic }) => topic)].map(([topic, ofTopic]) => {
    const names = ofTopic.map(({ name }) => name)
    return [
      code(topic),
      names.map(code).join(', '),
      partiesTo(names, sends),
      partiesTo(names, reads),
    ]
  })
  return table(['topic', 'events', 'sent by', 'read by'].map(say), rows)
}

const namesOf = (services: ReadonlySet<string> | undefined, say: Say) =>
  SERVICES.filter((name) => services?.has(name)).join(', ') || say('no service here')

function partiesOf(recorded: Structure) {
  const [sends, reads] = [new Map<string, Set<string>>(), new Map<string, Set<string>>()]
  const add = (to: Map<string, Set<string>>, events: ReadonlySet<string>, service: string) => {
    for (const event of events) to.set(event, (to.get(event) ?? new Set()).add(service))
  }
  for (const [key, events] of recorded.sends) add(sends, events, key.split(' > ')[0]!)
  for (const [key, events] of recorded.reads) add(reads, events, key.split(' > ')[1]!)
  return { sends, reads }
}

const SERVICES = ['order', 'billing', 'notification']
const BALANCE_SUMMARY = 'The newest balance of an account. Compacted.'

export function metricsTable(): string {
  const rows = Object.entries(METRICS).map(([name, { type, labels, help }]) => [
    code(name),
    type,
    labels.map(code).join(', '),
    help,
  ])
  return table(['metric', 'type', 'labels', 'meaning'], rows)
}

export function errorsTable(): string {
  const rows = Object.entries(PROBLEMS).map(([name, { status, retryable, title }]) => [
    code(name),
    String(status),
    retryable ? 'yes' : 'no',
    title,
  ])
  return table(['code', 'status', 'retryable', 'title'], rows)
}

export function callsTable(documents: readonly OpenApi[], say: Say): string {
  const rows = documents.flatMap(({ paths }) =>
    Object.entries(paths).flatMap(([path, operations]) =>
      Object.entries(operations).map(([method, { summary = '', 'x-access': access }]) => [
        code(`${method.toUpperCase()} ${path}`),
        say(summary),
        accessText(access ?? 'public', say),
      ]),
    ),
  )
  return table(['call', 'what it does', 'with AUTH=jwt'].map(say), rows)
}

function accessText(access: Access, say: Say): string {
  if (access === 'public') return say('everyone')
  const grants = access.map((grant) =>
    grant.role === 'service'
      ? `${say('services')}: ${grant.names.join(', ')}`
      : `${say(grant.role)}: ${code(grant.scope)}`,
  )
  return grants.join('; ')
}

/**
 * The cost of an order in each style, from the figures in docs/performance.md. Throws if the page has no
 * figures.
 */
export function costsTable(benchmark: string, say: Say, language: Language): string {
  const figure = (pattern: string) => {
    const found = new RegExp(pattern, 'm').exec(benchmark)?.[1]
    return found && Number(found.replaceAll(',', '')).toLocaleString(language)
  }
  const costs = STYLES.map((style) => ({
    style,
    rate: figure(`^\\| ${style} \\|.* ([\\d,]+) orders/s \\|.*orders/s`),
    cpu: figure(`^- ${style}: all ([\\d.]+),`),
  })).filter(({ rate, cpu }) => rate && cpu)
  if (costs.length === 0) throw new Error('docs/performance.md has no figures of any style')
  return table(
    ['', ...costs.map(({ style }) => code(style))],
    [
      [say('orders per second'), ...costs.map(({ rate }) => rate as string)],
      [
        say('CPU per order, Kafka and PostgreSQL included'),
        ...costs.map(({ cpu }) => `${cpu} ${say('ms')}`),
      ],
    ],
  )
}

export function resultsTable(folders: readonly NewmanFolder[], say: Say): string {
  const rows = folders.map(({ name, requests, assertions }) => {
    const shown = isStyle(name) ? `[\`${name}\`](docs/newman/${name}.txt)` : say(name)
    return [shown, String(requests), String(assertions), '0']
  })
  return table(['folder', 'requests', 'assertions', 'failed'].map(say), rows)
}

function variablesOf(config: TObject) {
  return describeConfig(config).map(({ name, type, default: value, description }) => ({
    name,
    type: type.replace(/ of at least 1 characters$/, ''),
    value: String(value ?? ''),
    description: sentence(description),
  }))
}

/** Describes the valid values of a variable. Only patterns are formatted as code. */
function valuesOf(type: string, say: Say): string {
  const pattern = /^text that matches (.+)$/.exec(type)?.[1]
  if (pattern) return `${say('text that matches')} ${code(pattern)}`
  const names = /^one of (.+)$/.exec(type)?.[1]
  if (names) return `${say('one of')} ${names}`
  const [from, to] = /^an integer from (\d+) to (\d+)$/.exec(type)?.slice(1) ?? []
  if (from) return `${say('an integer')}, ${from}–${to}`
  const least = /^an integer of at least (\d+)$/.exec(type)?.[1]
  if (least) return `${say('an integer')}, ≥ ${least}`
  return say(type)
}

function fieldsOf({ properties }: { readonly properties: object }): string {
  return Object.keys(properties).map(code).join(', ')
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n')
}

export const code = (text: string): string => `\`${text}\``
const upperFirst = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)
const sentence = (text: string): string => upperFirst(text).replace(/[.]?$/, '.')
/** Quotes values with spaces or angle brackets, as shells and Node.js require. */
const quoted = (value: string): string => (/[\s<>]/.test(value) ? `"${value}"` : value)
