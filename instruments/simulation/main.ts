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
 * The deterministic simulator. It runs the real services in one process, with a clock, random numbers, a
 * network, a broker and a database that are all controlled by a seed.
 *
 * A service reaches the outside world only through the parts that it is given: clock, random numbers,
 * database, bus, HTTP and letters. In the simulator each part is a wrapper (`parts.ts`,
 * `simulated-database.ts`, `simulated-bus.ts`, `network.ts`, `mailbox.ts`) that turns every call into a step
 * (`steps.ts`), an event at a time drawn from the seed. The scheduler (`scheduler.ts`) runs one event, waits
 * until all code that the event triggered has come to rest, and runs the next event. So any two concurrent
 * events can happen in either order, and the same seed always gives the same run, byte for byte.
 *
 * Each process has its own clock (`clocks.ts`); the database has the scheduler's. A fault can happen at every
 * step (`faults.ts`, `profiles.ts`): the process dies before or after the step or is frozen (`freezes.ts`),
 * the step fails, or it takes effect and its response is lost. Calls and messages are lost, delayed or
 * duplicated. Other faults are planned for a certain time (`plan.ts`): crashes, frozen processes, outages,
 * rebalances, consumer groups that are rewound, a log that is replayed or lost, serialization failures,
 * clocks that are changed, and unreadable messages (`foreign-messages.ts`). During all this, customers
 * (`customers.ts`) place orders, make deposits, delete, void, read, try to access other customers' orders,
 * and repeat requests under the same Idempotency-Key, or send a different request under a used one by
 * mistake.
 *
 * Then faults stop, and within 120 simulated seconds all work must be finished. The invariants of the audit
 * must hold, and the responses that customers got must agree with the tables (`history.ts`). Customers who
 * got no response then repeat their request and must get a response. `npm run mutants` measures how many bugs
 * these checks find.
 *
 * The SQL is real: it runs on PGlite in memory, which is restored from an image between runs. There is one
 * limit: the writes of two transactions are never interleaved (`simulated-database.ts` explains which
 * statements can be).
 */
const HELP = `
npm run simulate -- [--seeds 1000] [--from 1] [--style all] [options]

  --seeds N      number of seeds, each run in every chosen style (default: 100)
  --from N       first seed (default: 1)
  --seed N       run only this seed
  --style S      ${STYLES.join(', ')}, mixed (each request draws its style), or all (default)
  --profile P    ${Object.keys(PROFILES).join(', ')} (default: drawn from the seed)
  --minutes N    stop after N minutes
  --workers N    number of threads (default: one per core)
  --trace        with --seed and one --style: print the run as a sequence diagram
  --record       write the result and its date into docs/results.json, for npm run docs; excludes --style,
                 --profile, --seed and --minutes
  --help         print this text

Without --trace, the results are also written to reports/simulation.json.
Exit codes: 0 no violation; 1 a violation (its seed is printed, with the smallest set of faults that causes it);
2 wrong usage.
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
    seeds: TEXT,
    from: TEXT,
    seed: TEXT,
    style: TEXT,
    profile: TEXT,
    minutes: TEXT,
    workers: TEXT,
    trace: FLAG,
    record: FLAG,
    help: FLAG,
  })
  if (values.help) return undefined
  const number = (name: 'seeds' | 'from' | 'seed' | 'minutes' | 'workers', fallback: number) => {
    const given = values[name]
    const value = given === undefined ? fallback : Number(given)
    if (!(value > 0)) throw new UsageError(`--${name} must be greater than 0, not ${given}`)
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

/** Runs one seed and prints it as a sequence diagram. */
async function printRun({ from, styles, profile }: Options): Promise<number> {
  const store = await openStore()
  const result = await simulate(store, { seed: from, style: styles[0]!, profile, isTraced: true })
  await store.close()
  process.stdout.write(`${diagramOf(result.arrows)}\n${summaryOf(result)}`)
  return result.violations.length === 0 ? 0 : 1
}

/** Runs many seeds, and minimizes the faults of the first one with a violation. */
async function sweep(options: Options): Promise<number> {
  const { from, seeds, styles, profile, minutes, workers } = options
  const runs = function* (): Generator<SeedStyle> {
    for (let seed = from; seed < from + seeds; seed += 1) {
      for (const style of styles) yield { seed, style }
    }
  }
  const threads = Math.min(workers, seeds * styles.length)
  const tally = createTally({ from, seeds, styles, workers: threads })
  const started = new Date()
  const progress = setInterval(() => process.stderr.write(`${tally.line()}\n`), PROGRESS_MS)
  try {
    await simulateAll({
      runs: runs(),
      workers: threads,
      profile,
      limitMs: minutes * 60_000,
      onDone(one) {
        tally.add(one)
        if (one.violations.length === 0) return
        process.stdout.write(`seed ${one.seed}, ${one.style}, ${one.profile}: violation\n`)
      },
    })
  } finally {
    clearInterval(progress)
  }
  process.stdout.write(`${tally.line()} (styles ${styles.join(', ')})\n`)
  process.stdout.write(`report: ${relative(process.cwd(), await tally.write())}\n`)
  if (options.isRecorded) {
    const violations = tally.violated.length
    recordResult('simulate', { seeds, styles: styles.length, violations }, started)
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
    `\nseed ${seed}, ${style}, with the smallest set of faults that causes a violation:\n${summaryOf(result)}` +
      `${kept.map((name) => `  fault: ${name}\n`).join('')}` +
      `\nnpm run simulate -- --seed ${seed} --style ${style} --profile ${profile} --trace\n`,
  )
}

function summaryOf({ violations, faults, profile, fingerprint, durationMs }: RunResult): string {
  const lines = violations.map(
    ({ invariant, subject, sentence }) => `  ${invariant}  ${subject} ${sentence}\n`,
  )
  const what = violations.length === 0 ? 'no violations' : 'violations:'
  return (
    `profile ${profile}, ${faults.length} faults, ${durationMs / 1000} simulated seconds, ` +
    `fingerprint ${fingerprint.slice(0, 16)}: ${what}\n${lines.join('')}`
  )
}
