import { allInOneConfig } from '../apps/all-in-one/config.ts'
import { BALANCE_CHANGED, EVENTS } from '../contracts/events.ts'
import { PROBLEMS } from '../contracts/problems.ts'
import { describeConfig } from '../platform/config.ts'
import { METRICS } from '../platform/telemetry.ts'

/** The tables of the documents, as Markdown, each made from the code that it is about. */

/** What is read of an OpenAPI document. */
export interface OpenApi {
  readonly info: { readonly title: string }
  readonly paths: Readonly<
    Record<
      string,
      Readonly<Record<string, { readonly summary?: string; readonly tags?: string[] }>>
    >
  >
}

export function configurationTable(): string {
  const rows = variables().map(({ name, type, value, description }) => [
    code(name),
    value === '' ? 'empty' : code(value),
    valuesOf(type),
    description,
  ])
  return table(['variable', 'default', 'values', 'what it is'], rows)
}

/** Every variable with its default, commented out: the file says what there is and sets nothing. */
export function environmentExample(): string {
  const entries = variables().map(({ name, type, value, description }) => {
    const values = type === 'text' ? '' : `# Values: ${type}\n`
    return `# ${description}\n${values}#${name}=${quoted(value)}\n`
  })
  return [EXAMPLE_HEAD, ...entries].join('\n')
}

const EXAMPLE_HEAD = `# Everything that the program reads from its environment, with the defaults. Written by
# \`npm run docs\`. To use it: copy it to .env, change what you need, and start with
#
#     npx node --env-file=.env apps/all-in-one/main.ts
`

export function eventsTable(): string {
  const events = Object.entries(EVENTS).map(([name, { topic, from, summary, schema }]) => [
    code(topic),
    code(name),
    from,
    fieldsOf(schema),
    summary,
  ])
  const balance = ['`balance`', '-', 'billing', fieldsOf(BALANCE_CHANGED), BALANCE_SUMMARY]
  return table(['topic', 'event', 'from', 'body', 'what it says'], [...events, balance])
}

const BALANCE_SUMMARY = 'The newest balance of an account. Compacted.'

export function metricsTable(): string {
  const rows = Object.entries(METRICS).map(([name, { type, labels, help }]) => [
    code(name),
    type,
    labels.map(code).join(', '),
    help,
  ])
  return table(['metric', 'type', 'labels', 'what it counts'], rows)
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

export function callsTable(documents: readonly OpenApi[]): string {
  const rows = documents.flatMap(({ paths }) =>
    Object.entries(paths).flatMap(([path, operations]) =>
      Object.entries(operations).map(([method, { summary = '' }]) => [
        code(`${method.toUpperCase()} ${path}`),
        summary,
      ]),
    ),
  )
  return table(['call', 'what it does'], rows)
}

function variables() {
  return describeConfig(allInOneConfig).map(({ name, type, default: value, description }) => ({
    name,
    type: type.replace(/ of at least 1 characters$/, ''),
    value: String(value ?? ''),
    description: sentence(description),
  }))
}

/** Patterns are code; words are not. */
function valuesOf(type: string): string {
  return type.replace(/^(text that matches) (.+)$/, (_, words, pattern) => {
    return `${words} ${code(pattern)}`
  })
}

function fieldsOf({ properties }: { readonly properties: object }): string {
  return Object.keys(properties).map(code).join(', ')
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n')
}

const code = (text: string): string => `\`${text}\``
const upperFirst = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)
const sentence = (text: string): string => upperFirst(text).replace(/[.]?$/, '.')
/** Shells and Node read quoted what has spaces or angle brackets. */
const quoted = (value: string): string => (/[\s<>]/.test(value) ? `"${value}"` : value)
