import { availableParallelism } from 'node:os'
import { recordResult } from '../../tools/docs/results.ts'
import { FLAG, readArguments, runCommand, TEXT, UsageError } from '../simulation/command.ts'
import type { SeedRun } from '../simulation/workers.ts'
import { MUTANTS } from './all-mutants.ts'
import { type HuntResult, hunt, runUnchanged, STYLES_IN_TURN } from './hunt.ts'
import type { Mutant } from './mutant.ts'
import { keepReport, lineOf, writeTable } from './report.ts'

/**
 * The mutation score of the simulator: bugs are planted in the services, one at a time, and each must
 * be found within its number of seeds.
 *
 * A mutant (`mutant.ts`) is data: a text of the source, and what stands there instead. The product has no
 * switches for it: a thread of the simulator loads the changed file in place of the other
 * (`plant.ts`), and everything else is as in `npm run simulate`. A mutant whose text is not in the
 * source any more, or is there twice, fails a test.
 *
 * A bug that is not found asks for a better simulator or better checks, and not for a shorter list.
 */
const QUICK_SEEDS = 10

const HELP = `
npm run mutants [-- options]

  --only WORD    those whose names have the word
  --quick        those whose limit is ${QUICK_SEEDS} seeds, which is most of them
  --seeds N      at most so many seeds for each; each has a limit of its own
  --workers N    threads (one per core)
  --write        writes the table of docs/mutants.md from the last result of each mutant
  --record       the same, and puts the score and its date into docs/results.json, for npm run docs; needs all
                 mutants and seeds
  --help         this text

A seed is run in ${STYLES_IN_TURN.join(', ')}, until the bug is found. Afterwards the same runs are done
with the services as they are, and must come out without a violation. reports/mutants.json keeps the
last result of each mutant.

Exit code: 0 all were found, 1 one survived or the services themselves were violated, 2 wrong usage.
`

await runCommand('mutants', HELP, readOptions, main)

async function main(options: Options): Promise<number> {
  const { mutants, seeds, workers } = options
  const begun = new Date()
  const startedMs = performance.now()
  const hunted: HuntResult[] = []
  await inLanes(workers, mutants, async (mutant) => {
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
    recordResult('mutants', { found, planted: hunted.length }, begun)
  }
  process.stdout.write(
    `${hunted.length - survivors.length} of ${hunted.length} mutants were found; without them ` +
      `${violated} of the same ${runs.length} runs were violated (${seconds} s)\n`,
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
    ...{ only: TEXT, seeds: TEXT, workers: TEXT, quick: FLAG },
    ...{ write: FLAG, record: FLAG, help: FLAG },
  })
  if (help) return undefined
  const number = (name: 'seeds' | 'workers', fallback: number) => {
    const value = Number(rest[name] ?? fallback)
    if (!(value > 0)) throw new UsageError(`--${name} must be a number above 0, not ${rest[name]}`)
    return value
  }
  const mutants = MUTANTS.filter(({ name, seeds }) => {
    return name.includes(only) && (!quick || seeds <= QUICK_SEEDS)
  })
  if (mutants.length === 0) throw new UsageError(`no name of a mutant has ${only}`)
  const seeds = number('seeds', Number.POSITIVE_INFINITY)
  if (isRecorded && (mutants.length < MUTANTS.length || rest.seeds)) {
    throw new UsageError('--record needs all mutants and seeds: no --only, --quick or --seeds')
  }
  const workers = number('workers', availableParallelism())
  return { mutants, seeds, workers, isWritten, isRecorded }
}

/** How many of the runs are violated without a mutant: what is found there proves nothing. */
async function checkUnchanged(runs: readonly SeedRun[], workers: number): Promise<number> {
  let violated = 0
  const queue = runs.values()
  const lanes = Array.from({ length: Math.min(workers, runs.length) }, () => queue)
  await inLanes(lanes.length, lanes, async (share) => {
    for await (const { seed, style, violations } of runUnchanged(share)) {
      violated += 1
      const { invariant, subject, sentence } = violations[0]!
      process.stdout.write(
        `unchanged, seed ${seed}, ${style}: ${invariant} ${subject} ${sentence}\n`,
      )
    }
  })
  return violated
}

function distinct(runs: readonly SeedRun[]): SeedRun[] {
  return [...new Map(runs.map((run) => [Object.values(run).join(), run])).values()]
}

/** Works through the items, so many at a time. */
async function inLanes<Item>(
  lanes: number,
  items: readonly Item[],
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const queue = items.values()
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      for (const item of queue) await work(item)
    }),
  )
}
