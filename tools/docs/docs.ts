import { readFileSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { STYLES } from '../../contracts/style.ts'
import type { Client } from '../../tests/e2e/client.ts'
import { root } from '../repository-files.ts'
import { instrumentsTable } from './instruments.ts'
import { type NewmanFolder, newmanReport, runNewman } from './newman.ts'
import { LANGUAGES, type Language, pathOf } from './pages.ts'
import { overviewPicture } from './pictures/overview.ts'
import { type Recording, recordScenes, type Scene } from './pictures/recording.ts'
import { sequencePicture } from './pictures/sequence.ts'
import { structureOf, structurePicture } from './pictures/structure.ts'
import { readResults } from './results.ts'
import { RUSSIAN } from './russian.ts'
import { stylesTable } from './styles.ts'
import {
  callsTable,
  configurationTables,
  costsTable,
  environmentExample,
  errorsTable,
  eventsTable,
  metricsTable,
  type OpenApi,
  resultsTable,
  type Say,
  topicsTable,
} from './tables.ts'

/**
 * Writes those parts of the documents that are generated from the code and from a running program: tables,
 * pictures and results. A table is between the lines `<!-- NAME:begin -->` and `<!-- NAME:end -->`; files
 * without such lines are generated completely. With `--check`, nothing is written, and the exit code is 1 if
 * a document is out of date.
 */
export interface Document {
  /** The path relative to the root. */
  readonly path: string
  /** The current content of the file; empty if the file does not exist. */
  readonly text: string
  /** The content that the file should have. */
  readonly expected: string
}

export async function generatedDocuments(): Promise<Document[]> {
  const { recordings, collected } = await recordScenes(collectFrom)
  const whole = [
    ['.env.example', environmentExample()],
    ...picturesOf(recordings),
    ...reportsOf(collected.folders),
    ...(await chartSchemas()),
  ] as const
  const filled = [
    ...LANGUAGES.flatMap((language) => pageTables(recordings, collected, language)),
    ['docs/errors.md', { errors: errorsTable() }],
    ['docs/metrics.md', { metrics: metricsTable() }],
  ] as const
  return Promise.all([
    ...whole.map(async ([path, expected]) => ({ path, text: await textOf(path), expected })),
    ...filled.map(async ([path, tables]) => {
      const text = await textOf(path)
      const fill = (page: string, [name, table]: [string, string]) =>
        fillIn(path, page, name, table)
      return { path, text, expected: Object.entries(tables).reduce(fill, text) }
    }),
  ])
}

/** Fills in the tables on the pages for users. */
function pageTables(
  recordings: readonly Recording[],
  { openApi, folders }: Awaited<ReturnType<typeof collectFrom>>,
  language: Language,
): (readonly [path: string, Record<string, string>])[] {
  const say: Say = (text) => (language === 'ru' && RUSSIAN[text]) || text
  const structure = structureOf(recordings)
  const benchmark = readFileSync(`${root}docs/performance.md`, 'utf8')
  const tables = {
    README: {
      topics: topicsTable(structure, say),
      costs: costsTable(benchmark, say, language),
      results: resultsTable(folders, say),
    },
    'docs/api': { calls: callsTable(openApi, say) },
    'docs/configuration': configurationTables(say),
    'docs/events': { events: eventsTable(structure, say) },
    'docs/styles': { styles: stylesTable(say) },
    'docs/guarantees': { instruments: instrumentsTable(readResults(), say, language) },
  }
  return Object.entries(tables).map(([page, filled]) => [pathOf(page, language), filled])
}

/** The sequence pictures of each style: an order that is paid, and a scene that is typical of the style. */
const SEQUENCES: readonly (readonly [Recording['style'], Scene, name: string, title: string])[] = [
  ['http', 'paid', 'sequence', 'An order in style http'],
  ['hybrid', 'paid', 'sequence', 'An order in style hybrid'],
  ['events', 'paid', 'sequence', 'An order in style events'],
  [
    'http',
    'outage',
    'notification-off',
    'An order in style http while the notification service is off',
  ],
  ['hybrid', 'outage', 'billing-off', 'An order in style hybrid while the billing service is off'],
  ['events', 'refused', 'refused', 'An order in style events without enough money'],
]

function picturesOf(recordings: readonly Recording[]): (readonly [string, string])[] {
  const structures = STYLES.map((style) => {
    const own = recordings.filter((recording) => recording.style === style)
    const picture = structurePicture(structureOf(own), `Calls and events in style ${style}`)
    return [`docs/pictures/${style}-structure.svg`, picture] as const
  })
  const sequences = SEQUENCES.map(([style, scene, name, title]) => {
    const matches = (one: Recording) => one.style === style && one.scene === scene
    const picture = sequencePicture(recordings.find(matches)!, title)
    return [`docs/pictures/${style}-${name}.svg`, picture] as const
  })
  return [['docs/pictures/styles.svg', overviewPicture()], ...structures, ...sequences]
}

function reportsOf(folders: readonly NewmanFolder[]): (readonly [string, string])[] {
  return folders
    .filter(({ name }) => STYLES.some((style) => style === name))
    .map((folder) => [`docs/newman/${folder.name}.txt`, newmanReport(folder)])
}

/** The schemas for the charts' values. They list the styles that a deployment can choose as its default. */
function chartSchemas(): Promise<(readonly [string, string])[]> {
  const enumOfStyles = /("interactionStyle": \{\s*"enum": )\[[^\]]*\]/
  const names = STYLES.map((style) => JSON.stringify(style)).join(', ')
  return Promise.all(
    ['order', 'billing', 'notification'].map(async (chart) => {
      const path = `deploy/helm/${chart}/values.schema.json`
      const text = await textOf(path)
      if (!enumOfStyles.test(text)) throw new Error(`${path} does not list the styles`)
      return [path, text.replace(enumOfStyles, (_, head) => `${head}[${names}]`)] as const
    }),
  )
}

/**
 * Replaces the table with this name. Throws if the document has no place for the table, which would otherwise
 * be missing without notice.
 */
export function fillIn(path: string, text: string, name: string, table: string): string {
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`${path} has no place for ${name}: ${begin} ${end}`)
  return `${text.slice(0, from + begin.length)}\n${table}\n${text.slice(to)}`
}

/** Reads the OpenAPI documents from the running services, and runs newman. */
async function collectFrom({ url, read }: Client) {
  const services = ['orders', 'billing', 'notification']
  const documents = services.map((service) => read<OpenApi>(`/${service}/openapi.json`))
  return { openApi: await Promise.all(documents), folders: await runNewman(url) }
}

function textOf(path: string): Promise<string> {
  return readFile(root + path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw error
  })
}

if (import.meta.main) {
  const checkOnly = process.argv.includes('--check')
  const outdated = (await generatedDocuments()).filter(({ text, expected }) => text !== expected)
  for (const { path, expected } of outdated) {
    if (!checkOnly) {
      await mkdir(dirname(root + path), { recursive: true })
      await writeFile(root + path, expected)
    }
    console.log(checkOnly ? `${path} is out of date: npm run docs` : `${path} updated`)
  }
  if (checkOnly && outdated.length > 0) process.exitCode = 1
}
