import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { inspect, parseArgs } from 'node:util'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import { temporaryFolder } from '../../tests/e2e/program.ts'
import { recordResult } from '../../tools/docs/results.ts'
import { root } from '../../tools/repository-files.ts'
import { createChances } from '../simulation/world/chance.ts'
import { type FragileStack, startFragileStack } from './faults/fragile-stack.ts'
import { chaosPicture } from './picture.ts'
import { reportPage } from './report.ts'
import { runChaos } from './run.ts'

/**
 * Chaos on real servers: what the simulator does in simulated time, done to processes.
 *
 * `fragile-stack.ts` starts two of each service on Kafka, PostgreSQL and nginx, with a proxy (`proxy.ts`) on
 * each way that a service goes: Kafka has a listener for each service and advertises the proxy's port, so that
 * clients cannot find a way round it. One service has its tables on a disk that can be filled
 * (`small-disk.ts`). A replica can start with a wrong clock (`wrong-clock.ts`), and PostgreSQL says which
 * transactions it has open (`sessions.ts`). `schedule.ts` draws from the seed what goes wrong when, `faults.ts`
 * does it and puts it right. Meanwhile the customers of the simulator work over HTTP (`customers.ts`); each
 * attempt is a line of the history (`history.ts`).
 *
 * Then faults stop. Each request under an Idempotency-Key is asked for until it has its answer, everything must
 * come to rest within a stated time (`run.ts`), and history, databases, topics and letters must agree
 * (`checker.ts`): the audit's invariants, and the simulator's check of what customers were told.
 * The page is made by `report.ts` and `charts.ts` of what `figures.ts` says.
 */
const HELP = `
npm run chaos -- [--minutes 5] [--style mixed] [--seed N] [--record]

Runs two of each service on an Apache Kafka, a PostgreSQL and an nginx of their own, lets customers work
through TCP proxies, and hurts all of it: the network, the services, broker and database, a disk. Services
are killed, frozen, frozen between two statements of a transaction for shorter and for longer than their
session's time-out, and started with clocks that are an hour off or a day ahead. Then faults and requests stop, everything must come to rest within a minute, and what customers were told is
checked against databases, topics and letters.

  --minutes N   how long faults happen (5)
  --style S     ${STYLES.join(', ')}, or mixed: each request its own (mixed)
  --seed N      of faults and customers; drawn and printed unless told
  --record      writes the result and its date to docs/results.json, for npm run docs, and the charts to
                docs/pictures/chaos.svg
  --help        this text

Writes a page, its figures and the history of all requests to reports/. Exit code: 0 all that must be true
is true, 1 something is not, 2 it could not run.
`

const EXIT_INTERRUPTED = 130
/** Of violations; all are in the report. */
const MAX_LINES = 20

interface Options {
  readonly minutes: number
  readonly style: InteractionStyle | 'mixed'
  readonly seed: number
  readonly isRecorded: boolean
}

class UsageError extends Error {}

/** undefined: only its usage was asked for. */
function readOptions(args: readonly string[]): Options | undefined {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean', default: false } as const
  const { values } = parseArgs({
    args: [...args],
    options: { minutes: text, style: text, seed: text, record: flag, help: flag },
  })
  if (values.help) return undefined
  const minutes = Number(values.minutes ?? 5)
  if (!(minutes >= 0.5 && minutes <= 600)) throw new UsageError('--minutes must be from 0.5 to 600')
  const style = [...STYLES, 'mixed' as const].find((one) => one === (values.style ?? 'mixed'))
  if (style === undefined) throw new UsageError(`there is no style ${values.style}`)
  const seed = values.seed === undefined ? Math.floor(Math.random() * 1e6) : Number(values.seed)
  if (!Number.isSafeInteger(seed)) throw new UsageError('--seed must be a whole number')
  return { minutes, style, seed, isRecorded: values.record }
}

type Say = (line: string) => void

/** Returns the exit code. */
async function chaos(options: Options, stopped: AbortSignal, say: Say): Promise<number> {
  const { minutes, style, seed, isRecorded } = options
  const begun = new Date()
  const name = `chaos-${style}-${seed}`
  const reports = join(root, 'reports', name)
  mkdirSync(reports, { recursive: true })
  say(`seed ${seed}, ${style}, ${minutes} minutes`)
  const { folder, remove } = await temporaryFolder()
  let fragile: FragileStack | undefined
  try {
    fragile = await startFragileStack({
      ...{ folder, say, signal: stopped },
      style: style === 'mixed' ? 'events' : style,
      onDisk: createChances(seed)('disk').pick(['billing', 'notification'] as const),
    })
    if (typeof fragile.disk === 'string') say(`no full disk: ${fragile.disk}`)
    const report = await runChaos({
      ...{ minutes, style, seed, fragile, say, signal: stopped },
      historyFile: join(reports, 'history.jsonl'),
    })
    if (report === undefined) throw stopped.reason
    writeFileSync(join(reports, 'report.json'), `${JSON.stringify(report, undefined, 1)}\n`)
    writeFileSync(join(reports, 'report.html'), reportPage(report))
    const { findings } = report
    if (isRecorded) {
      recordResult('chaos', { minutes, style, violations: findings.length }, begun)
      writeFileSync(join(root, 'docs', 'pictures', 'chaos.svg'), chaosPicture(report))
    }
    if (findings.length > 0) keepLogs(folder, reports)
    for (const { invariant, subject, sentence } of findings.slice(0, MAX_LINES)) {
      console.log(`${invariant}  ${subject} ${sentence}`)
    }
    const verdict = findings.length === 0 ? 'clean' : `${findings.length} violations`
    say(`${verdict}: see ${relative('.', join(reports, 'report.html'))}`)
    return findings.length === 0 ? 0 : 1
  } finally {
    await fragile?.close()
    await remove()
  }
}

function keepLogs(folder: string, reports: string): void {
  cpSync(join(folder, 'logs'), join(reports, 'logs'), { recursive: true })
  for (const log of ['nginx/error.log', 'kafka/kafka.log']) {
    cpSync(join(folder, log), join(reports, 'logs', basename(log)))
  }
}

if (import.meta.main) {
  const stopped = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    // Not once: npm passes a signal on, and when it has ended comes another, which must not end the clearing up.
    process.on(name, () => stopped.abort(new Error(`${name} came before the end`)))
  }
  const begun = performance.now()
  const say = (line: string) => {
    const seconds = ((performance.now() - begun) / 1000).toFixed(1).padStart(6)
    console.log(`${seconds} s  ${line}`)
  }
  try {
    const options = readOptions(process.argv.slice(2))
    if (options === undefined) console.log(HELP)
    else process.exitCode = await chaos(options, stopped.signal, say)
  } catch (error) {
    const isExpected = error instanceof UsageError || error === stopped.signal.reason
    console.error(`chaos: ${isExpected ? (error as Error).message : inspect(error)}`)
    process.exitCode = stopped.signal.aborted ? EXIT_INTERRUPTED : 2
  }
  // Customers of a run that was given up would go on asking.
  process.exit()
}
