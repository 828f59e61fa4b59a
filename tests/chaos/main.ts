import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import { endWithNpm } from '../../tools/end-with-npm.ts'
import { root } from '../../tools/repository-files.ts'
import { replicasReady } from '../../tools/stack-services.ts'
import { until } from '../../tools/until.ts'
import { temporaryFolder } from '../e2e/program.ts'
import type { Finding } from '../simulation/books.ts'
import { createChances } from '../simulation/chance.ts'
import { check, openForChecks } from './checker.ts'
import { startCustomers } from './customers.ts'
import { letHappen, type Struck } from './faults.ts'
import { figuresOf, type Report } from './figures.ts'
import { type FragileStack, SETTINGS, startFragileStack } from './fragile-stack.ts'
import { openHistory, readHistory } from './history.ts'
import { reportPage } from './report.ts'
import { drawSchedule } from './schedule.ts'

const HELP = `
npm run chaos -- [--minutes 5] [--style mixed] [--seed N]

Runs two of each service on an Apache Kafka, a PostgreSQL and an nginx of their own, lets customers work
through TCP proxies, and hurts all of it: the network, the services, broker and database, a disk. Then
faults and requests stop, everything must come to rest within a minute, and what customers were told is
checked against databases, topics and letters.

  --minutes N   how long faults happen (5)
  --style S     http, hybrid, events, or mixed: each request its own (mixed)
  --seed N      of faults and customers; drawn and printed unless told
  --help        this text

Writes a page, its figures and the history of all requests to reports/. Exit code: 0 all that must be true
is true, 1 something is not, 2 it could not run.
`

const REST_LIMIT_MS = 60_000
/** Answers that are asked for again after the faults, before everything must come to rest. */
const INSIST_LIMIT_MS = 60_000
const READY_LIMIT_MS = 60_000
const LOOK_MS = 500
const EXIT_INTERRUPTED = 130

interface Options {
  readonly minutes: number
  readonly style: InteractionStyle | 'mixed'
  readonly seed: number
}

class UsageError extends Error {}

/** undefined: only its usage was asked for. */
function readOptions(args: readonly string[]): Options | undefined {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args: [...args],
    options: { minutes: text, style: text, seed: text, help: { type: 'boolean' } },
  })
  if (values.help) return undefined
  const minutes = Number(values.minutes ?? 5)
  if (!(minutes >= 0.5 && minutes <= 600)) throw new UsageError('--minutes must be from 0.5 to 600')
  const style = [...STYLES, 'mixed' as const].find((one) => one === (values.style ?? 'mixed'))
  if (style === undefined) throw new UsageError(`there is no style ${values.style}`)
  const seed = values.seed === undefined ? Math.floor(Math.random() * 1e6) : Number(values.seed)
  if (!Number.isSafeInteger(seed)) throw new UsageError('--seed must be a whole number')
  return { minutes, style, seed }
}

type Say = (line: string) => void

/** Returns the exit code. */
async function chaos(options: Options, stopped: AbortSignal, say: Say): Promise<number> {
  const { minutes, style, seed } = options
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
    const report = await strikeAndCheck(
      options,
      fragile,
      join(reports, 'history.jsonl'),
      stopped,
      say,
    )
    if (report === undefined) return EXIT_INTERRUPTED
    writeFileSync(join(reports, 'report.json'), `${JSON.stringify(report, undefined, 1)}\n`)
    writeFileSync(join(reports, 'report.html'), reportPage(report))
    const { findings } = report
    if (findings.length > 0)
      cpSync(join(folder, 'logs'), join(reports, 'logs'), { recursive: true })
    for (const { invariant, subject, sentence } of findings.slice(0, 20)) {
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

async function strikeAndCheck(
  { minutes, style, seed }: Options,
  fragile: FragileStack,
  historyFile: string,
  stopped: AbortSignal,
  say: Say,
): Promise<Report | undefined> {
  const { stack, url, disk } = fragile
  const ended = watchEnds(fragile)
  const history = openHistory(historyFile)
  const customers = startCustomers({ url, seed, style, onAttempt: history.note })
  const startedMs = Date.now()
  const withDisk = typeof disk !== 'string'
  const schedule = drawSchedule({ seed, lengthMs: minutes * 60_000, withDisk })
  const faults = await letHappen({ stack: fragile, schedule, signal: stopped, say })
  const leftMs = startedMs + minutes * 60_000 - Date.now()
  if (leftMs > 0) await sleep(leftMs, undefined, { signal: stopped }).catch(() => undefined)
  const healedMs = Date.now()
  if (stopped.aborted) return undefined

  say('faults are over; the last customers leave')
  await replicasReady(stack.replicas, AbortSignal.timeout(READY_LIMIT_MS), () => undefined)
  await customers.stop()
  const calmMs = Date.now()
  await customers.insist(INSIST_LIMIT_MS)
  await customers.close()
  await history.close()
  const opened = await openForChecks(stack, join(stack.folder, 'mail'))
  try {
    const restMs = await rest(opened.isAtRest, say)
    say('checks history, databases, topics and letters')
    const deeds = await readHistory(historyFile)
    const times = { settings: SETTINGS, healedMs, faults: namesOf(faults) }
    const evidence = await opened.evidence()
    const { findings, checked, books } = await check({ ...evidence, deeds, times })
    return {
      ...{ seed, style, minutes, startedMs, healedMs, calmMs, restMs, faults },
      withoutDisk: withDisk ? undefined : disk,
      findings: [...ended(), ...findings],
      checked: Object.fromEntries(checked),
      ...figuresOf(deeds, books, { startedMs, endMs: restMs }),
    }
  } finally {
    await opened.close()
  }
}

/** As the history's check knows them: what keeps order from looking is not held against its time. */
const namesOf = (faults: readonly Struck[]) => (faults.length > 0 ? ['crash'] : [])

/** Resolves with the time when nothing waits any more, or with that when it should have been so. */
async function rest(isAtRest: () => Promise<boolean>, say: Say): Promise<number> {
  const limitMs = REST_LIMIT_MS
  let calmLooks = 0
  const looks = async () => {
    calmLooks = (await isAtRest()) ? calmLooks + 1 : 0
    if (calmLooks < 2) await sleep(LOOK_MS)
    return calmLooks >= 2
  }
  // Whatever still waits then is named by the check.
  await until(looks, { limitMs }).catch((error: Error) => say(`no rest: ${error.message}`))
  return Date.now()
}

/** Nothing ends by itself. What was killed has another exit code than what gave up. */
function watchEnds({ stack }: FragileStack): () => Finding[] {
  const pids = new Map<number, string>()
  const ends: Finding[] = []
  const look = () => {
    for (const { service, number, server, logFile } of stack.replicas) {
      const { pid } = server
      if (pids.has(pid)) continue
      const subject = `${service} ${number}`
      pids.set(pid, subject)
      server.ended.then((code) => {
        if (code === KILLED) return
        const sentence = `ended by itself with code ${code}: see ${logFile}`
        ends.push({ invariant: 'process', subject, sentence })
      })
    }
  }
  look()
  const timer = setInterval(look, 100)
  return () => {
    clearInterval(timer)
    return ends
  }
}

/** Of SIGKILL, as a shell tells it. */
const KILLED = 137

if (import.meta.main) {
  const stopped = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => stopped.abort(new Error(`${name} came before the end`)))
  }
  endWithNpm()
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
    console.error(`chaos: ${error instanceof UsageError ? error.message : (error as Error).stack}`)
    process.exitCode = stopped.signal.aborted ? EXIT_INTERRUPTED : 2
  }
}
