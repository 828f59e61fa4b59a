import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fillIn } from '../../tools/docs/docs.ts'
import { root } from '../../tools/repository-files.ts'
import { MUTANTS } from './all-mutants.ts'
import type { HuntResult } from './hunt.ts'

/** The entry of one mutant in `reports/mutants.json`. */
interface Entry {
  readonly name: string
  readonly fault: string
  readonly files: readonly string[]
  /** The mutant must be found within this number of seeds. */
  readonly limit: number
  /** How many seeds were tried before the mutant was found or the hunt was given up. */
  readonly seeds: number
  readonly runs: number
  readonly durationMs: number
  readonly found: { seed: number; style: string; profile: string; as: string } | null
}

const REPORT = `${root}reports/mutants.json`

export function lineOf({ mutant, found, seeds, runs, durationMs }: HuntResult): string {
  const seconds = (durationMs / 1000).toFixed(1)
  const how = `${seeds} of ${mutant.seeds} seeds, ${runs.length} runs, ${seconds} s`
  if (found === undefined) return `SURVIVED ${mutant.name} (${how})`
  return `found ${mutant.name}, in ${found.style}, ${found.profile} (${how}): ${findingOf(found)}`
}

/** Updates the report with these results; mutants that were not hunted keep their last result. */
export function keepReport(hunted: readonly HuntResult[]): void {
  const entries = new Map(readReport().map((entry) => [entry.name, entry]))
  for (const one of hunted) entries.set(one.mutant.name, entryOf(one))
  const kept = MUTANTS.flatMap(({ name }) => entries.get(name) ?? [])
  mkdirSync(`${root}reports`, { recursive: true })
  writeFileSync(REPORT, `${JSON.stringify(kept, null, 2)}\n`)
}

/** Writes the report's results into the table in docs/mutants.md. */
export function writeTable(): void {
  const path = 'docs/mutants.md'
  const text = readFileSync(root + path, 'utf8')
  writeFileSync(root + path, fillIn(path, text, 'mutants', tableOf(readReport())))
}

function readReport(): Entry[] {
  return existsSync(REPORT) ? (JSON.parse(readFileSync(REPORT, 'utf8')) as Entry[]) : []
}

function entryOf({ mutant, found, seeds, runs, durationMs }: HuntResult): Entry {
  const { name, fault, edits, seeds: limit } = mutant
  const files = [...new Set(edits.map(({ file }) => file))]
  const tried = { seeds, runs: runs.length, durationMs: Math.round(durationMs) }
  if (found === undefined) return { name, fault, files, limit, ...tried, found: null }
  const { seed, style, profile } = found
  const where = { seed, style, profile, as: findingOf(found) }
  return { name, fault, files, limit, ...tried, found: where }
}

const ID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g

/** The first violation as text, without ids, which differ from seed to seed. */
function findingOf({ violations }: NonNullable<HuntResult['found']>): string {
  const { invariant, subject, sentence } = violations[0]!
  const text = `${invariant}: ${subject} ${sentence}`.replace(ID, '…')
  return text.length > 140 ? `${text.slice(0, 139)}…` : text
}

function tableOf(entries: readonly Entry[]): string {
  const byName = new Map(entries.map((entry) => [entry.name, entry]))
  const rows = MUTANTS.map(({ name, fault, seeds: limit }) => {
    const { found, seeds } = byName.get(name) ?? {}
    const [as, style, count] = found
      ? [found.as.replaceAll('|', '\\|'), found.style, found.seed]
      : [seeds === undefined ? 'not hunted' : `not found in ${seeds}`, '-', '-']
    return `| ${name} | ${fault} | ${as} | ${style} | ${count} | ${limit} |`
  })
  const head = '| mutant | fault | found as | style | seeds | limit |'
  return [head, '|---|---|---|---|---|---|', ...rows].join('\n')
}
