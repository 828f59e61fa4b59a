import { availableParallelism } from 'node:os'
import { recordResult } from '../../tools/docs/results.ts'
import { FLAG, readArguments, runCommand, TEXT, UsageError } from '../simulation/command.ts'
import type { SeedRun } from '../simulation/workers.ts'
import { MUTANTS } from './all-mutants.ts'
import { type HuntResult, hunt, runUnchanged, STYLES_IN_TURN } from './hunt.ts'
import type { Mutant } from './mutant.ts'
import { keepReport, lineOf, writeTable } from './report.ts'

/**
 * Measures how good the simulator is: it plants bugs in the services, one at a time, and the simulator must find
 * each within its number of seeds.
 *
 * A mutant (`mutant.ts`) is data: a piece of source text and its replacement. The product has no switches for
 * mutants. A simulator thread loads the edited file instead of the original (`plant.ts`), and everything else is
 * as in `npm run simulate`. A test fails if the text of a mutant no longer occurs exactly once in the source.
 *
 * If a bug is not found, improve the simulator or its checks; do not remove the bug from the list.
 */
const QUICK_SEEDS = 10

const HELP = `
npm run mutants [-- options]

  --only WORD    only mutants with this text in their name
  --quick        only mutants with a limit of ${QUICK_SEEDS} seeds or less, which are most of them
  --seeds N      try at most N seeds per mutant, even if its own limit is higher
  --workers N    number of threads (default: one per core)
  --write        write the last result of each mutant into the table of docs/mutants.md
  --record       also write the score and its date into docs/results.json, for npm run docs; excludes --only,
                 --quick and --seeds
  --help         print this text

Each seed runs in ${STYLES_IN_TURN.join(', ')}, in this order, until the bug is found. Afterwards
the same runs are repeated without the bugs and must show no violation. reports/mutants.json keeps the last
result of each mutant.

Exit codes: 0 all mutants were found; 1 a mutant survived, or a run without bugs showed a violation; 2 wrong usage.
`

await runCommand('mutants', HELP, readOptions, main)

async function main(options: Options): Promise<number> {
  const { mutants, seeds, workers } = options
  const started = new Date()
  const startedMs = performance.now()
  const hunted: HuntResult[] = []
  await concurrently(workers, mutants, async (mutant) => {
    const result = await hunt(mutant, Math.min(seeds, mutant.seeds))
    hunted.push(result)
    process.stdout.write(`${hunted.length}/${mutants.length} ${lineOf(result)}\n`)
  })
  const runs = distinct(hunted.flatMap((result) => result.runs))
  const violated = await checkUnchanged(runs, workers)
  const survivors = hunted.filter(({ found }) => found === undefined)
  const seconds = Math.round((performance.now() - startedMs) / 1000)
  keepReport(hunted)
  if (options.isWritten || options.isRecorded) writeTable()
  if (options.isRecorded) {
    const found = hunted.length - survivors.length
    recordResult('mutants', { found, planted: hunted.length }, started)
  }
  process.stdout.write(
    `found ${hunted.length - survivors.length} of ${hunted.length} mutants; without mutants, ` +
      `${violated} of the same ${runs.length} runs show violations (${seconds} s)\n`,
  )
  return survivors.length + violated === 0 ? 0 : 1
}

interface Options {
  readonly mutants: readonly Mutant[]
  readonly seeds: number
  readonly workers: number
  readonly isWritten: boolean
  readonly isRecorded: boolean
}

function readOptions(args: readonly string[]): Options | undefined {
  const {
    only = '',
    quick,
    write: isWritten = false,
    record: isRecorded = false,
    help,
    ...rest
  } = readArguments(args, {
    only: TEXT,
    seeds: TEXT,
    workers: TEXT,
    quick: FLAG,
    write: FLAG,
    record: FLAG,
    help: FLAG,
  })
  if (help) return undefined
  const number = (name: 'seeds' | 'workers', fallback: number) => {
    const value = Number(rest[name] ?? fallback)
    if (!(value > 0)) throw new UsageError(`--${name} must be greater than 0, not ${rest[name]}`)
    return value
  }
  const mutants = MUTANTS.filter(({ name, seeds }) => {
    return name.includes(only) && (!quick || seeds <= QUICK_SEEDS)
  })
  if (mutants.length === 0) throw new UsageError(`no mutant has "${only}" in its name`)
  const seeds = number('seeds', Number.POSITIVE_INFINITY)
  if (isRecorded && (mutants.length < MUTANTS.length || rest.seeds)) {
    throw new UsageError('--record excludes --only, --quick and --seeds')
  }
  const workers = number('workers', availableParallelism())
  return { mutants, seeds, workers, isWritten, isRecorded }
}

/**
 * How many of the runs show a violation without any mutant. A mutant that is found in such a run proves
 * nothing.
 */
async function checkUnchanged(runs: readonly SeedRun[], workers: number): Promise<number> {
  let violated = 0
  const queue = runs.values()
  // Each thread takes its next run from the shared queue.
  const queues = Array.from({ length: Math.min(workers, runs.length) }, () => queue)
  await concurrently(queues.length, queues, async (shared) => {
    for await (const { seed, style, violations } of runUnchanged(shared)) {
      violated += 1
      const { invariant, subject, sentence } = violations[0]!
      process.stdout.write(
        `without mutants, seed ${seed}, ${style}: ${invariant} ${subject} ${sentence}\n`,
      )
    }
  })
  return violated
}

function distinct(runs: readonly SeedRun[]): SeedRun[] {
  return [...new Map(runs.map((run) => [Object.values(run).join(), run])).values()]
}

/** Works through the items, `limit` at a time. */
async function concurrently<Item>(
  limit: number,
  items: readonly Item[],
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const queue = items.values()
  await Promise.all(
    Array.from({ length: limit }, async () => {
      for (const item of queue) await work(item)
    }),
  )
}
