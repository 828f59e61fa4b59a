import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { replicasReady } from '../../tools/stack/services.ts'
import type { Finding } from '../simulation/checks/tables.ts'
import { check, openForChecks, type Verdict } from './checker.ts'
import { type Customers, type CustomersOptions, startCustomers } from './customers.ts'
import { letHappen, type Struck } from './faults/faults.ts'
import { type FragileStack, SETTINGS } from './faults/fragile-stack.ts'
import { drawSchedule } from './faults/schedule.ts'
import { figuresOf, type Report } from './figures.ts'
import { type History, openHistory, readHistory } from './history.ts'

export interface RunOptions extends Pick<CustomersOptions, 'seed' | 'style'> {
  readonly minutes: number
  readonly fragile: FragileStack
  /** Where the history of all requests goes. */
  readonly historyFile: string
  /** Ends it early: then there is no report. */
  readonly signal: AbortSignal
  readonly say: (line: string) => void
}

/** From the last fault on each: all are ready, each key has its answer, nothing waits any more. */
const READY_LIMIT_MS = 60_000
const INSIST_LIMIT_MS = 60_000
const REST_LIMIT_MS = 60_000

/** Faults while customers work, then a quiet phase, then the checks. */
export async function runChaos(options: RunOptions): Promise<Report | undefined> {
  const { minutes, style, seed, fragile, historyFile, signal, say } = options
  const lengthMs = minutes * 60_000
  const ends = watchEnds(fragile)
  const history = openHistory(historyFile)
  const startedMs = Date.now()
  const customers = startCustomers({ url: fragile.url, seed, style, onAttempt: history.note })
  const withDisk = typeof fragile.disk !== 'string'
  const schedule = drawSchedule({ seed, lengthMs, withDisk })
  const faults = await letHappen({ stack: fragile, schedule, signal, say })
  await sleep(Math.max(0, startedMs + lengthMs - Date.now()), undefined, { signal }).catch(() => {})
  if (signal.aborted) return undefined

  const healedMs = Date.now()
  say('faults are over; the last customers leave')
  const quiet = await settle(options, customers, history)
  say('checks history, databases, topics and letters')
  const { findings, checked, tables, operations } = await checkAll(
    options,
    healedMs,
    faults.length > 0,
  )
  return {
    ...{ seed, style, minutes, startedMs, healedMs, faults, restMs: quiet.restMs },
    withoutDisk: typeof fragile.disk === 'string' ? fragile.disk : undefined,
    diskRefusals: withDisk ? countInLog(fragile, 'No space left on device') : 0,
    endedSessions: countInLog(fragile, 'idle-in-transaction timeout'),
    findings: [...ends(), ...violationsOf(faults), ...quiet.findings, ...findings],
    checked: Object.fromEntries(checked),
    ...figuresOf(operations, tables, { startedMs, endMs: quiet.restMs }),
  }
}

interface Quiet {
  /** When nothing waited any more, or when it was given up that this would come. */
  readonly restMs: number
  readonly findings: readonly Finding[]
}

async function settle(
  { fragile: { stack } }: RunOptions,
  customers: Customers,
  history: History,
): Promise<Quiet> {
  const findings: Finding[] = []
  // What is wrong is told with the rest, and does not keep from looking further.
  const expect = (subject: string, work: Promise<unknown>) =>
    work.catch((error: Error) => {
      findings.push({ invariant: 'rest', subject, sentence: error.message })
    })
  const limit = AbortSignal.timeout(READY_LIMIT_MS)
  await expect(
    'the stack',
    replicasReady(stack.replicas, limit, () => undefined),
  )
  await customers.stop()
  await customers.insist(INSIST_LIMIT_MS)
  await customers.close()
  await history.close()
  const opened = await openForChecks(stack)
  await expect('what waits', opened.untilAtRest(REST_LIMIT_MS))
  const restMs = Date.now()
  await opened.close()
  return { restMs, findings }
}

async function checkAll(
  { fragile: { stack }, historyFile }: RunOptions,
  healedMs: number,
  wasHurt: boolean,
): Promise<Verdict & Pick<Parameters<typeof check>[0], 'operations'>> {
  const opened = await openForChecks(stack)
  try {
    const operations = await readHistory(historyFile)
    // As the check of the history knows it: what keeps order from looking is not held against its time.
    const times = { settings: SETTINGS, healedMs, faults: wasHurt ? ['crash'] : [] }
    return { ...(await check({ ...(await opened.evidence()), operations, times })), operations }
  } finally {
    await opened.close()
  }
}

/** Of SIGKILL, as a shell tells it. */
const KILLED = 137
const LOOK_AT_PROCESSES_MS = 100

/** Nothing ends by itself; what we kill has another exit code than what gives up. */
function watchEnds({ processes }: FragileStack): () => Finding[] {
  const pids = new Set<number>()
  const ends: Finding[] = []
  const look = () => {
    for (const [subject, { pid, ended }] of processes) {
      if (pids.has(pid)) continue
      pids.add(pid)
      ended.then((code) => {
        const sentence = `ended by itself with code ${code}`
        if (code !== KILLED) ends.push({ invariant: 'process', subject, sentence })
      })
    }
  }
  look()
  const timer = setInterval(look, LOOK_AT_PROCESSES_MS)
  return () => {
    clearInterval(timer)
    return ends
  }
}

function violationsOf(faults: readonly Struck[]): Finding[] {
  return faults.flatMap(({ target, violation }) =>
    violation === undefined ? [] : [{ invariant: 'hold', subject: target, sentence: violation }],
  )
}

/** How many times PostgreSQL logged the words. */
function countInLog({ stack }: FragileStack, words: string): number {
  const log = readFileSync(join(stack.folder, 'logs', 'postgres.log'), 'utf8')
  return log.split(words).length - 1
}
