import { mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { STYLES } from '../../contracts/style.ts'
import { recordResult } from '../../tools/docs/results.ts'
import { root } from '../../tools/repository-files.ts'
import { FLAG, readArguments, runCommand, TEXT, UsageError } from '../simulation/command.ts'
import { diagramOf } from '../simulation/diagram.ts'
import { openStore } from '../simulation/servers/store.ts'
import { gaps, UNCROSSED } from './completeness.ts'
import { allCells, type Crash, crashAll, nameOf } from './matrix.ts'
import { type Cell, type CrashRun, runCell } from './run.ts'
import { isScenarioName, SCENARIOS } from './scenarios.ts'
import { readSites, type Sites } from './sites.ts'
import { outcomesOf, rowsOf, tableOf } from './table.ts'

/**
 * The crash matrix, which runs in the simulator's world. Each scenario first runs without a crash, and every
 * boundary that a process crosses is recorded (`boundaries.ts`): before and after each statement, commit,
 * send, take, commit of offsets, signal and letter, and before, during and after each call. Then the scenario
 * runs again once per crossing, and the process that reaches that crossing dies there and restarts.
 *
 * After each run the invariants of the audit must hold, the responses that customers got must agree with the
 * tables, all work must be finished within 120 simulated seconds, and the final orders and balance must be
 * among those that the scenario allows (`scenarios.ts`).
 *
 * The list of boundaries is read from the code (`sites.ts`). A boundary without a crash fails the matrix,
 * unless `completeness.ts` lists it with a reason.
 */
const HELP = `
npm run crash-matrix -- [--quick] [options]

  --quick        crash once at each boundary, in one of the scenarios and styles that reach it
  --style S      ${STYLES.join(', ')}, or all (default)
  --scenario S   ${Object.keys(SCENARIOS).join(', ')}, or all (default)
  --instances N  1 or 2 processes of each service, or all (default): both in turn
  --twice        crash a second time when the same boundary is reached again
  --workers N    number of threads (default: one per core)
  --crash N      with one --scenario, --style and --instances: only the crash at crossing N
  --trace        with one --scenario, --style and --instances: print the run as a sequence diagram
  --record       write the result and its date into docs/results.json, for npm run docs; needs the whole matrix
  --help         print this text

All crashes are listed in reports/crash-matrix.json.
Exit codes: 0 no violation, and a crash at every boundary; 1 otherwise; 2 wrong usage.
`

/** How many crashes with violations are printed in full; all are counted. */
const MAX_PRINTED = 10

await runCommand('crash-matrix', HELP, readOptions, main)

async function main(options: Options): Promise<number> {
  return options.single ? printRun(options.single) : sweep(options)
}

interface Options {
  readonly cells: readonly Cell[]
  /** Whether this is the whole matrix, which must reach every boundary. */
  readonly isWhole: boolean
  readonly isQuick: boolean
  readonly isTwice: boolean
  readonly isRecorded: boolean
  readonly workers: number
  readonly single: CrashRun | undefined
}

function readOptions(args: readonly string[]): Options | undefined {
  const values = readArguments(args, {
    style: TEXT,
    scenario: TEXT,
    instances: TEXT,
    workers: TEXT,
    crash: TEXT,
    quick: FLAG,
    twice: FLAG,
    trace: FLAG,
    record: FLAG,
    help: FLAG,
  })
  if (values.help) return undefined
  const { style = 'all', scenario = 'all', instances = 'all', crash, trace = false } = values
  if (style !== 'all' && !(STYLES as readonly string[]).includes(style)) {
    throw new UsageError(`there is no style ${style}`)
  }
  if (scenario !== 'all' && !isScenarioName(scenario)) {
    throw new UsageError(`there is no scenario ${scenario}`)
  }
  if (!['1', '2', 'all'].includes(instances)) {
    throw new UsageError(`--instances must be 1, 2 or all, not ${instances}`)
  }
  const cells = allCells().filter(
    (cell) =>
      (style === 'all' || cell.style === style) &&
      (scenario === 'all' || cell.scenario === scenario) &&
      (instances === 'all' || cell.instances === Number(instances)),
  )
  const isSingle = crash !== undefined || trace
  if (isSingle && cells.length > 1) {
    throw new UsageError('--crash and --trace need one --scenario, --style and --instances')
  }
  const isWhole = cells.length === allCells().length
  const { twice: isTwice = false, quick: isQuick = false, record: isRecorded = false } = values
  if (isRecorded && (isSingle || isQuick || isTwice || !isWhole)) {
    throw new UsageError('--record excludes all other options except --workers')
  }
  const crashAt = crash === undefined ? undefined : count('crash', crash, 0)
  return {
    cells,
    isWhole,
    isQuick,
    isTwice,
    isRecorded,
    workers: count('workers', values.workers ?? String(availableParallelism()), 1),
    single: isSingle ? { ...cells[0]!, crashAt, twice: isTwice, isTraced: trace } : undefined,
  }
}

function count(name: string, text: string, least: number): number {
  const value = Number(text)
  if (Number.isInteger(value) && value >= least) return value
  throw new UsageError(`--${name} must be a whole number of at least ${least}, not ${text}`)
}

/** Executes one run and prints its result, with a sequence diagram if it is traced. */
async function printRun(run: CrashRun): Promise<number> {
  const store = await openStore()
  const { violations, finalStates, arrows, deaths } = await runCell(store, run)
  await store.close()
  if (run.isTraced) process.stdout.write(`${diagramOf(arrows)}\n`)
  const what = violations.length === 0 ? 'no violations' : 'violations:'
  const states = finalStates.join(', ') || 'none'
  process.stdout.write(`${nameOf(run)}: deaths: ${deaths}; orders: ${states}; ${what}\n`)
  process.stdout.write(sentencesOf({ violations }))
  return violations.length === 0 ? 0 : 1
}

function sentencesOf({ violations }: Pick<Crash, 'violations'>): string {
  return violations
    .map(({ invariant, subject, sentence }) => `  ${invariant}  ${subject} ${sentence}\n`)
    .join('')
}

async function sweep(options: Options): Promise<number> {
  const { cells, isWhole, isRecorded } = options
  const sites = readSites()
  const started = new Date()
  const startedMs = performance.now()
  const seconds = () => Math.round((performance.now() - startedMs) / 1000)
  const crashes: Crash[] = []
  let planned = 0
  let violated = 0
  const line = () =>
    planned === 0
      ? `${cells.length} runs without a crash, ${seconds()} s`
      : `${crashes.length} of ${planned} crashes, ${seconds()} s, crashes with violations: ${violated}`
  const progress = setInterval(() => process.stderr.write(`${line()}\n`), 5_000)
  try {
    await crashAll({
      ...options,
      onPlanned(count) {
        planned = count
      },
      onCrash(crash) {
        crashes.push(crash)
        if (crash.violations.length === 0) return
        violated += 1
        if (violated <= MAX_PRINTED) process.stdout.write(describe(crash))
      },
    })
  } finally {
    clearInterval(progress)
  }
  const missing = isWhole
    ? gaps(
        sites,
        crashes.map(({ crossing }) => crossing),
      )
    : []
  report(options, crashes, sites, missing, seconds())
  process.stdout.write(`${line()}\n`)
  if (isRecorded) {
    recordResult('crash-matrix', { crashes: crashes.length, violations: violated }, started)
  }
  return violated + missing.length === 0 ? 0 : 1
}

/** A crash with its violations, and the command that repeats it. */
function describe({ run, crossing, violations }: Crash): string {
  const { scenario, style, instances, crashAt, twice } = run
  const { service, member, of, place, phase } = crossing
  return (
    `\n${nameOf(run)}: ${service} dies at ${of ? `${of} ` : ''}${member}, ${phase} (${place})\n` +
    sentencesOf({ violations }) +
    `npm run crash-matrix -- --scenario ${scenario} --style ${style} --instances ${instances}` +
    ` --crash ${crashAt}${twice ? ' --twice' : ''} --trace\n`
  )
}

function report(
  options: Options,
  crashes: readonly Crash[],
  sites: Sites,
  missing: readonly string[],
  seconds: number,
): void {
  const scenarios = Object.keys(SCENARIOS).filter(isScenarioName)
  const rows = rowsOf(crashes, sites)
  const shown = scenarios.filter((one) => options.cells.some(({ scenario }) => scenario === one))
  process.stdout.write(
    `\nCrashes at each boundary; the number after ! had violations\n\n${tableOf(rows, shown)}` +
      `\nFinal states of the orders\n\n${outcomesOf(crashes)}` +
      (options.isWhole
        ? `\nBoundaries that no scenario reaches\n\n${UNCROSSED.map(
            ({ name, services, reason }) =>
              `  ${services?.join(', ') ?? 'all'}: ${name}: ${reason}\n`,
          ).join('')}`
        : '') +
      missing.map((gap) => `\ngap: ${gap}`).join('') +
      '\n',
  )
  const folder = join(root, 'reports')
  mkdirSync(folder, { recursive: true })
  const all = rows.map(({ service, kind, name, phase, crashes: of }) => ({
    service,
    kind,
    name,
    phase,
    crashes: of.map(({ run, finalStates, deaths, violations }) => ({
      ...run,
      finalStates,
      deaths,
      violations,
    })),
  }))
  const { isQuick, isTwice, isWhole } = options
  const content = { seconds, isQuick, isTwice, isWhole, missing, uncrossed: UNCROSSED, rows: all }
  writeFileSync(join(folder, 'crash-matrix.json'), `${JSON.stringify(content, null, 1)}\n`)
}
