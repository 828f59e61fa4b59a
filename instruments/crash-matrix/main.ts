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
 * The crash matrix, on the world of the simulator: each scenario runs once as it is, and every
 * boundary of a process that it crosses is noted (`boundaries.ts`): before and after each statement,
 * commit, send, take, commit of offsets, signal and letter, and before, during and after each call. Then it
 * runs again for each of them, with the process that comes to it dying there and starting again.
 *
 * After each run the invariants of the audit must hold, what customers were told must be true, all
 * must be settled within 120 simulated seconds, and the orders and the balance must be what the
 * scenario allows (`scenarios.ts`).
 *
 * Which boundaries there are is read from the code (`sites.ts`): one that nothing crashed at fails
 * the matrix, unless `completeness.ts` lists it with a reason.
 */
const HELP = `
npm run crash-matrix -- [--quick] [options]

  --quick        one crash at each boundary, of whichever scenarios and styles come to it
  --style S      ${STYLES.join(', ')}, or all of these (all)
  --scenario N   ${Object.keys(SCENARIOS).join(', ')}, or all of these (all)
  --instances N  1 or 2 processes of each service, or each in turn (all)
  --twice        the process dies once more when it comes to that boundary again
  --workers N    threads (one per core)
  --crash N      with a scenario, a style and instances: the crash at that crossing alone
  --trace        with --crash, or in its place: prints what happened as a sequence diagram
  --record       puts the result and its date into docs/results.json, for npm run docs; needs the whole matrix
  --help         this text

All crashes are in reports/crash-matrix.json. Exit code: 0 nothing was violated and nothing left out, 1 something
was, 2 wrong usage.
`

/** Of more violations than these only the numbers are told. */
const MAX_TOLD = 10

await runCommand('crash-matrix', HELP, readOptions, main)

async function main(options: Options): Promise<number> {
  return options.single ? printRun(options.single) : sweep(options)
}

interface Options {
  readonly cells: readonly Cell[]
  /** Whether this is the whole matrix, so that nothing may be missing. */
  readonly isWhole: boolean
  readonly isQuick: boolean
  readonly isTwice: boolean
  readonly isRecorded: boolean
  readonly workers: number
  readonly single: CrashRun | undefined
}

function readOptions(args: readonly string[]): Options | undefined {
  const values = readArguments(args, {
    ...{ style: TEXT, scenario: TEXT, instances: TEXT, workers: TEXT, crash: TEXT },
    ...{ quick: FLAG, twice: FLAG, trace: FLAG, record: FLAG, help: FLAG },
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
    throw new UsageError(`--instances is 1, 2 or all, not ${instances}`)
  }
  const cells = allCells().filter(
    (cell) =>
      (style === 'all' || cell.style === style) &&
      (scenario === 'all' || cell.scenario === scenario) &&
      (instances === 'all' || cell.instances === Number(instances)),
  )
  const isSingle = crash !== undefined || trace
  if (isSingle && cells.length > 1) {
    throw new UsageError('--crash and --trace need one --style, --scenario and --instances')
  }
  const isWhole = cells.length === allCells().length
  const { twice: isTwice = false, quick: isQuick = false, record: isRecorded = false } = values
  if (isRecorded && (isSingle || isQuick || isTwice || !isWhole)) {
    throw new UsageError('--record needs the whole matrix: no other option but --workers')
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
  throw new UsageError(`--${name} is a whole number from ${least} on, not ${text}`)
}

/** One run, as a diagram where it is asked for. */
async function printRun(run: CrashRun): Promise<number> {
  const store = await openStore()
  const { violations, ends, arrows, deaths } = await runCell(store, run)
  await store.close()
  if (run.isTraced) process.stdout.write(`${diagramOf(arrows)}\n`)
  const what = violations.length === 0 ? 'nothing is violated' : 'violated:'
  const ended = ends.join(', ') || 'none'
  process.stdout.write(`${nameOf(run)}: ${deaths} deaths, orders: ${ended}; ${what}\n`)
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
  const begun = new Date()
  const startedMs = performance.now()
  const seconds = () => Math.round((performance.now() - startedMs) / 1000)
  const crashes: Crash[] = []
  let planned = 0
  let harmful = 0
  const line = () =>
    planned === 0
      ? `${cells.length} runs without a crash, ${seconds()} s`
      : `${crashes.length} of ${planned} crashes, ${seconds()} s, violations: ${harmful}`
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
        harmful += 1
        if (harmful <= MAX_TOLD) process.stdout.write(toldOf(crash))
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
    recordResult('crash-matrix', { crashes: crashes.length, violations: harmful }, begun)
  }
  return harmful + missing.length === 0 ? 0 : 1
}

function toldOf({ run, crossing, violations }: Crash): string {
  const { scenario, style, instances, crashAt, twice } = run
  const { service, member, of, place, phase } = crossing
  return (
    `\n${nameOf(run)}: ${service} dies ${phase} ${of ?? ''} ${member} (${place})\n` +
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
    `\nCrashes at each boundary; those that did harm after a !\n\n${tableOf(rows, shown)}` +
      `\nHow the orders ended\n\n${outcomesOf(crashes)}` +
      (options.isWhole
        ? `\nBoundaries that no scenario comes to\n\n${UNCROSSED.map(
            ({ name, services, reason }) =>
              `  ${services?.join(', ') ?? 'all'}: ${name}: ${reason}\n`,
          ).join('')}`
        : '') +
      missing.map((gap) => `\nnot complete: ${gap}`).join('') +
      '\n',
  )
  const folder = join(root, 'reports')
  mkdirSync(folder, { recursive: true })
  const all = rows.map(({ service, kind, name, phase, crashes: of }) => ({
    ...{ service, kind, name, phase },
    crashes: of.map(({ run, ends, deaths, violations }) => ({ ...run, ends, deaths, violations })),
  }))
  const { isQuick, isTwice, isWhole } = options
  const content = { seconds, isQuick, isTwice, isWhole, missing, uncrossed: UNCROSSED, rows: all }
  writeFileSync(join(folder, 'crash-matrix.json'), `${JSON.stringify(content, null, 1)}\n`)
}
