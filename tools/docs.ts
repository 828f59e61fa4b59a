import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { allInOneConfig } from '../apps/all-in-one/config.ts'
import { startAllInOne } from '../apps/all-in-one/program.ts'
import { readConfig } from '../platform/config.ts'
import {
  callsTable,
  configurationTable,
  environmentExample,
  errorsTable,
  eventsTable,
  metricsTable,
  type OpenApi,
} from './docs-tables.ts'
import { root } from './repository-files.ts'

/**
 * Writes the tables of the documents from the code. A table stands between the lines
 * `<!-- NAME:begin -->` and `<!-- NAME:end -->`; `.env.example` is written whole. With `--check`
 * nothing is written, and the exit code is 1 when a document is behind.
 */
export interface Document {
  /** From the root. */
  readonly path: string
  /** What the file holds now; empty where there is none. */
  readonly text: string
  /** What it should hold. */
  readonly expected: string
}

const TABLES = {
  'README.md': ['events', 'configuration'],
  'docs/api.md': ['calls'],
  'docs/errors.md': ['errors'],
  'docs/metrics.md': ['metrics'],
} as const
type TableName = (typeof TABLES)[keyof typeof TABLES][number]

export async function generatedDocuments(): Promise<Document[]> {
  const tables: Record<TableName, string> = {
    events: eventsTable(),
    configuration: configurationTable(),
    errors: errorsTable(),
    metrics: metricsTable(),
    calls: callsTable(await readOpenApi()),
  }
  const filled = Object.entries(TABLES).map(async ([path, names]) => {
    const text = await textOf(path)
    const fill = (so: string, name: TableName) => fillIn(path, so, name, tables[name])
    return { path, text, expected: names.reduce(fill, text) }
  })
  const path = '.env.example'
  const example = { path, text: await textOf(path), expected: environmentExample() }
  return [...(await Promise.all(filled)), example]
}

/** Throws where the document has no place for the table: a table that nobody sees is behind, too. */
export function fillIn(path: string, text: string, name: string, table: string): string {
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`${path} has no place for ${name}: ${begin} ${end}`)
  return `${text.slice(0, from + begin.length)}\n${table}\n${text.slice(to)}`
}

/** The services' OpenAPI documents, as a program that was started for this serves them. */
async function readOpenApi(): Promise<OpenApi[]> {
  const folder = await mkdtemp(join(tmpdir(), 'trifold-docs-'))
  const environment = { PORT: '0', LOG_LEVEL: 'silent', DATA_DIR: folder }
  const program = await startAllInOne(readConfig(allInOneConfig, environment))
  try {
    const services = ['orders', 'billing', 'notification']
    const read = async (service: string) => {
      const answer = await fetch(`${program.url}/${service}/openapi.json`)
      return (await answer.json()) as OpenApi
    }
    return await Promise.all(services.map(read))
  } finally {
    await program.close()
    await rm(folder, { recursive: true, force: true })
  }
}

function textOf(path: string): Promise<string> {
  return readFile(root + path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw error
  })
}

if (import.meta.main) {
  const checkOnly = process.argv.includes('--check')
  const behind = (await generatedDocuments()).filter(({ text, expected }) => text !== expected)
  for (const { path, expected } of behind) {
    if (!checkOnly) await writeFile(root + path, expected)
    console.log(checkOnly ? `${path} is behind: npm run docs` : `${path} is written`)
  }
  if (checkOnly && behind.length > 0) process.exitCode = 1
}
