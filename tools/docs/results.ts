import { readFileSync, writeFileSync } from 'node:fs'
import { root } from '../repository-files.ts'

/**
 * The results of the last long runs of the instruments, committed as `docs/results.json`. An instrument writes its own
 * entry when it is run with `--record`; `npm run docs` puts the entries, with their dates, into the documents.
 */
export interface Results {
  readonly simulate: Dated<{ seeds: number; styles: number; violations: number }>
  readonly 'crash-matrix': Dated<{ crashes: number; violations: number }>
  readonly mutants: Dated<{ found: number; planted: number }>
  readonly chaos: Dated<{ minutes: number; style: string; violations: number }>
}

/** The UTC day of the run, as YYYY-MM-DD. */
type Dated<Figures> = Readonly<Figures & { date: string }>

const FILE = `${root}docs/results.json`

export function readResults(file = FILE): Results {
  return JSON.parse(readFileSync(file, 'utf8')) as Results
}

/** Replaces the entry of one instrument. `started` is the time at which its run started. */
export function recordResult<Name extends keyof Results>(
  name: Name,
  figures: Omit<Results[Name], 'date'>,
  started: Date,
  file = FILE,
): void {
  const entry = { date: started.toISOString().slice(0, 10), ...figures }
  const results = { ...readResults(file), [name]: entry }
  writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`)
}
