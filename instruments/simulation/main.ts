import { availableParallelism } from 'node:os'
import { relative } from 'node:path'
import { STYLES } from '../../contracts/style.ts'
import { recordResult } from '../../tools/docs/results.ts'
import { FLAG, readArguments, runCommand, TEXT, UsageError } from './command.ts'
import { diagramOf } from './diagram.ts'
import { minimize } from './minimize.ts'
import { isProfileName, PROFILES, type ProfileName } from './profiles.ts'
import { createTally } from './report.ts'
import { type Run, type RunResult, simulate } from './run.ts'
import { openStore } from './servers/store.ts'
import { type SeedResult, type SeedStyle, simulateAll } from './workers.ts'

/**
 * The deterministic simulator: the real services, in one process, under a clock, a chance, a network,
 * a broker and a database that are owned by a seed.
 *
 * What a service does to the world goes through what it is made of: clock and chance, database, bus,
 * HTTP, letters. Here each of these is a wrapper (`parts.ts`, `simulated-database.ts`,
 * `simulated-bus.ts`, `network.ts`, `mailbox.ts`) that makes of every call a step (`steps.ts`): an event
 * at a time that the seed draws. The scheduler (`scheduler.ts`) lets one event happen, waits until
 * all that follows from it has come to rest, and takes the next. So any two things that run side by
 * side may come in either order, and the same seed is the same run, to the byte.
 *
 * Each process has a clock of its own (`clocks.ts`), the database has the scheduler's. At every step
 * something may go wrong (`faults.ts`, `profiles.ts`): the process dies before or after it, is frozen
 * (`freezes.ts`), it fails, or it takes effect and nobody hears of it. Calls and messages are lost, slow,
 * doubled. Other things are planned for a time (`plan.ts`): crashes, frozen processes, outages,
 * rebalances, groups that go back, a log that is replayed or lost, transactions that all lose, clocks that
 * are set, messages that nobody can read (`foreign-messages.ts`). Meanwhile customers (`customers.ts`) order, pay in,
 * delete, void, look, pry, and ask again under their Idempotency-Keys, or others' by mistake.
 *
 * Then faults stop, and within 120 simulated seconds everything must be final: the invariants of the
 * audit, and the history of what customers were told (`history.ts`), against the tables. Who had no
 * answer asks again then, and must have one. How much of what could go wrong is seen by that,
 * `npm run mutants` measures.
 *
 * The SQL is real, on PGlite in memory, put back to an image between runs. One limit: the writes of a
 * transaction are never interleaved with those of another (`simulated-database.ts` says what is).
 */
const HELP = `
npm run simulate -- [--seeds 1000] [--from 1] [--style all] [options]

  --seeds N      how many seeds, for each style (100)
  --from N       the first seed (1)
  --seed N       this seed alone
  --style S      ${STYLES.join(', ')}, mixed (each request its own), or all of these (all)
  --profile P    ${Object.keys(PROFILES).join(', ')}; drawn from the seed unless told
  --minutes N    stops after so many minutes
  --workers N    threads (one per core)
  --trace        with --seed and a style: prints what happened as a sequence diagram
  --record       puts the result and its date into docs/results.json, for npm run docs; needs all styles
                 and profiles and every seed, so no --style, --profile, --seed or --minutes
  --help         this text

Many seeds are told in reports/simulation.json too.
Exit code: 0 nothing was violated, 1 something was (its seed and least faults are printed), 2 wrong usage.
`

const PROGRESS_MS = 10_000

const ALL_STYLES = [...STYLES, 'mixed'] as const

await runCommand('simulate', HELP, readOptions, main)

async function main(options: Options): Promise<number> {
  return options.isTraced ? printRun(options) : sweep(options)
}

interface Options {
  readonly from: number
  readonly seeds: number
  readonly styles: readonly Run['style'][]
  readonly profile: ProfileName | undefined
  readonly minutes: number
  readonly workers: number
  readonly isTraced: boolean
  readonly isRecorded: boolean
}

function readOptions(args: readonly string[]): Options | undefined {
  const values = readArguments(args, {
    ...{ seeds: TEXT, from: TEXT, seed: TEXT, style: TEXT, profile: TEXT },
    ...{ minutes: TEXT, workers: TEXT, trace: FLAG, record: FLAG, help: FLAG },
  })
  if (values.help) return undefined
  const number = (name: 'seeds' | 'from' | 'seed' | 'minutes' | 'workers', fallback: number) => {
    const given = values[name]
    const value = given === undefined ? fallback : Number(given)
    if (!(value > 0)) throw new UsageError(`--${name} must be a number above 0, not ${given}`)
    return value
  }
  const { style = 'all', profile, trace = false, record = false } = values
  const styles = ALL_STYLES.filter((one) => style === 'all' || style === one)
  if (styles.length === 0) throw new UsageError(`there is no style ${style}`)
  if (profile !== undefined && !isProfileName(profile)) {
    throw new UsageError(`there is no profile ${profile}`)
  }
  if (trace && (values.seed === undefined || styles.length > 1)) {
    throw new UsageError('--trace needs --seed and one --style')
  }
  const isPart = (styles.length < ALL_STYLES.length || profile) ?? values.seed ?? values.minutes
  if (record && isPart) {
    throw new UsageError('--record excludes --style, --profile, --seed and --minutes')
  }
  return {
    from: number(values.seed === undefined ? 'from' : 'seed', 1),
    seeds: values.seed === undefined ? number('seeds', 100) : 1,
    styles,
    profile,
    minutes: number('minutes', Number.POSITIVE_INFINITY),
    workers: number('workers', availableParallelism()),
    isTraced: trace,
    isRecorded: record,
  }
}

/** One seed, as a diagram. */
async function printRun({ from, styles, profile }: Options): Promise<number> {
  const store = await openStore()
  const result = await simulate(store, { seed: from, style: styles[0]!, profile, isTraced: true })
  await store.close()
  process.stdout.write(`${diagramOf(result.arrows)}\n${summaryOf(result)}`)
  return result.violations.length === 0 ? 0 : 1
}

/** Many seeds; the first that is violated is looked into. */
async function sweep(options: Options): Promise<number> {
  const { from, seeds, styles, profile, minutes, workers } = options
  const runs = function* (): Generator<SeedStyle> {
    for (let seed = from; seed < from + seeds; seed += 1) {
      for (const style of styles) yield { seed, style }
    }
  }
  const threads = Math.min(workers, seeds * styles.length)
  const tally = createTally({ from, seeds, styles, workers: threads })
  const begun = new Date()
  const progress = setInterval(() => process.stderr.write(`${tally.line()}\n`), PROGRESS_MS)
  try {
    await simulateAll({
      ...{ runs: runs(), workers: threads, profile, limitMs: minutes * 60_000 },
      onDone(one) {
        tally.add(one)
        if (one.violations.length === 0) return
        process.stdout.write(`seed ${one.seed}, ${one.style}, ${one.profile}: violated\n`)
      },
    })
  } finally {
    clearInterval(progress)
  }
  process.stdout.write(`${tally.line()} (styles ${styles.join(', ')})\n`)
  process.stdout.write(`${relative(process.cwd(), await tally.write())} has it all\n`)
  if (options.isRecorded) {
    const violations = tally.violated.length
    recordResult('simulate', { seeds, styles: styles.length, violations }, begun)
  }
  const [first] = tally.violated
  if (first) await explain(first)
  return first ? 1 : 0
}

async function explain({ seed, style, profile }: SeedResult): Promise<void> {
  const store = await openStore()
  const { result, kept } = await minimize(store, { seed, style, profile })
  await store.close()
  process.stdout.write(
    `\nseed ${seed}, ${style}, with the least faults that still violate:\n${summaryOf(result)}` +
      `${kept.map((name) => `  fault: ${name}\n`).join('')}` +
      `\nnpm run simulate -- --seed ${seed} --style ${style} --profile ${profile} --trace\n`,
  )
}

function summaryOf({ violations, faults, profile, fingerprint, durationMs }: RunResult): string {
  const lines = violations.map(
    ({ invariant, subject, sentence }) => `  ${invariant}  ${subject} ${sentence}\n`,
  )
  const what = violations.length === 0 ? 'nothing is violated' : 'violated:'
  return (
    `profile ${profile}, ${faults.length} faults, ${durationMs / 1000} simulated seconds, ` +
    `fingerprint ${fingerprint.slice(0, 16)}: ${what}\n${lines.join('')}`
  )
}
