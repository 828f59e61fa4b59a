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
 * Chaos on real servers: the simulator's faults, injected into real processes.
 *
 * `fragile-stack.ts` starts two replicas of each service on Kafka, PostgreSQL and nginx, with a proxy
 * (`proxy.ts`) on every network link of a service. Kafka has a listener for each service and advertises the
 * proxy's port, so that clients cannot bypass it. One service has its tables on a disk that can be filled
 * (`small-disk.ts`). A replica can start with a wrong clock (`wrong-clock.ts`), and PostgreSQL reports which
 * transactions it has open (`sessions.ts`). `schedule.ts` draws the faults and their times from the seed;
 * `faults.ts` injects and repairs them. While faults are active, the simulator's customers send requests over
 * HTTP (`customers.ts`), and each attempt is recorded as a line of the history (`history.ts`).
 *
 * Then the faults stop. Each request with an Idempotency-Key is retried until it has a final response, all
 * work must finish within a time limit (`run.ts`), and the history, databases, topics and e-mails must agree:
 * `checker.ts` applies the audit's invariants and the simulator's check of the customers' responses.
 * `figures.ts` computes the run's statistics; `report.ts` and `charts.ts` render them as a page.
 */
const HELP = `
npm run chaos -- [--minutes 5] [--style mixed] [--seed N] [--record]

Runs two replicas of each service on their own Apache Kafka, PostgreSQL and nginx, sends customers' requests
through TCP proxies, and injects faults into the network, the services, the broker, the database and a disk.
Services are killed, frozen, frozen inside a transaction for shorter and for longer than PostgreSQL's session
time-out, and started with clocks that are an hour off or a day ahead. Then faults and requests stop, and all
work must be finished within a minute. The responses that customers received are checked against databases,
topics and letters.

  --minutes N   how long faults are injected (5)
  --style S     ${STYLES.join(', ')}, or mixed: each request draws its own style (mixed)
  --seed N      seed of the faults and the customers; drawn and printed if absent
  --record      write the result and its date to docs/results.json, for npm run docs, and the charts to
                docs/pictures/chaos.svg
  --help        print this text

Writes a report page, its figures and the history of all requests to reports/. Exit code: 0 if every check
passed, 1 if a check failed, 2 if the run itself failed.
`

const EXIT_INTERRUPTED = 130
/** How many violations are printed; the report has all of them. */
const MAX_LINES = 20

interface Options {
  readonly minutes: number
  readonly style: InteractionStyle | 'mixed'
  readonly seed: number
  readonly isRecorded: boolean
}

class UsageError extends Error {}

/** Returns undefined for --help. */
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
  const started = new Date()
  const name = `chaos-${style}-${seed}`
  const reports = join(root, 'reports', name)
  mkdirSync(reports, { recursive: true })
  say(`seed ${seed}, ${style}, ${minutes} minutes`)
  const { folder, remove } = await temporaryFolder()
  let fragile: FragileStack | undefined
  try {
    fragile = await startFragileStack({
      folder,
      say,
      signal: stopped,
      style: style === 'mixed' ? 'events' : style,
      onDisk: createChances(seed)('disk').pick(['billing', 'notification'] as const),
    })
    if (typeof fragile.disk === 'string') say(`no disk faults: ${fragile.disk}`)
    const report = await runChaos({
      minutes,
      style,
      seed,
      fragile,
      say,
      signal: stopped,
      historyFile: join(reports, 'history.jsonl'),
    })
    if (report === undefined) throw stopped.reason
    writeFileSync(join(reports, 'report.json'), `${JSON.stringify(report, undefined, 1)}\n`)
    writeFileSync(join(reports, 'report.html'), reportPage(report))
    const { findings } = report
    if (isRecorded) {
      recordResult('chaos', { minutes, style, violations: findings.length }, started)
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
    // `on` and not `once`: npm forwards the signal, and npm's exit causes a second signal, which must not end
    // the cleanup.
    process.on(name, () => stopped.abort(new Error(`interrupted by ${name}`)))
  }
  const startedMs = performance.now()
  const say = (line: string) => {
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)
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
  // Customers of an interrupted run would go on sending requests.
  process.exit()
}
