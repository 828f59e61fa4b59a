import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { replicasReady } from '../../tools/stack/services.ts'
import type { Finding } from '../simulation/checks/tables.ts'
import { check, openForChecks, type Verdict } from './checker.ts'
import { type Customers, type CustomersOptions, startCustomers } from './customers.ts'
import { type InjectedFault, injectFaults } from './faults/faults.ts'
import { type FragileStack, SETTINGS } from './faults/fragile-stack.ts'
import { drawSchedule } from './faults/schedule.ts'
import { figuresOf, type Report } from './figures.ts'
import { type History, openHistory, readHistory } from './history.ts'

export interface RunOptions extends Pick<CustomersOptions, 'seed' | 'style'> {
  readonly minutes: number
  readonly fragile: FragileStack
  /** The file that the history of all requests is written to. */
  readonly historyFile: string
  /** Ends the run early, without a report. */
  readonly signal: AbortSignal
  readonly say: (line: string) => void
}

/** From the end of the faults until all replicas are ready. */
const READY_LIMIT_MS = 60_000
/** From when all replicas are ready until every request with an Idempotency-Key has a final response. */
const RETRY_LIMIT_MS = 60_000
/** From when all requests have final responses until no table and no topic holds unfinished work. */
const REST_LIMIT_MS = 60_000

/** Injects faults while customers work, waits through a quiet phase, then checks. */
export async function runChaos(options: RunOptions): Promise<Report | undefined> {
  const { minutes, style, seed, fragile, historyFile, signal, say } = options
  const lengthMs = minutes * 60_000
  const exits = watchExits(fragile)
  const history = openHistory(historyFile)
  const startedMs = Date.now()
  const customers = startCustomers({ url: fragile.url, seed, style, onAttempt: history.note })
  const withDisk = typeof fragile.disk !== 'string'
  const schedule = drawSchedule({ seed, lengthMs, withDisk })
  const faults = await injectFaults({ stack: fragile, schedule, signal, say })
  await sleep(Math.max(0, startedMs + lengthMs - Date.now()), undefined, { signal }).catch(() => {})
  if (signal.aborted) return undefined

  const healedMs = Date.now()
  say('faults are over; waiting for the last customers')
  const quiet = await settle(options, customers, history)
  say('checking history, databases, topics and letters')
  const { findings, checked, tables, operations } = await checkAll(
    options,
    healedMs,
    faults.length > 0,
  )
  return {
    seed,
    style,
    minutes,
    startedMs,
    healedMs,
    faults,
    restMs: quiet.restMs,
    withoutDisk: typeof fragile.disk === 'string' ? fragile.disk : undefined,
    diskRefusals: withDisk ? countInLog(fragile, 'No space left on device') : 0,
    endedSessions: countInLog(fragile, 'idle-in-transaction timeout'),
    findings: [...exits(), ...violationsOf(faults), ...quiet.findings, ...findings],
    checked: Object.fromEntries(checked),
    ...figuresOf(operations, tables, { startedMs, endMs: quiet.restMs }),
  }
}

interface Quiet {
  /** When the stack came to rest, or when the wait for that ended; epoch milliseconds. */
  readonly restMs: number
  readonly findings: readonly Finding[]
}

async function settle(
  { fragile: { stack } }: RunOptions,
  customers: Customers,
  history: History,
): Promise<Quiet> {
  const findings: Finding[] = []
  // A failure is reported with the other findings; the checks go on.
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
  await customers.retryUnanswered(RETRY_LIMIT_MS)
  await customers.close()
  await history.close()
  const opened = await openForChecks(stack)
  await expect('unfinished work', opened.untilAtRest(REST_LIMIT_MS))
  const restMs = Date.now()
  await opened.close()
  return { restMs, findings }
}

async function checkAll(
  { fragile: { stack }, historyFile }: RunOptions,
  healedMs: number,
  hadFaults: boolean,
): Promise<Verdict & Pick<Parameters<typeof check>[0], 'operations'>> {
  const opened = await openForChecks(stack)
  try {
    const operations = await readHistory(historyFile)
    // With 'crash', the check tolerates that the order service could not poll in time; any of these faults
    // can cause that.
    const times = { settings: SETTINGS, healedMs, faults: hadFaults ? ['crash'] : [] }
    return { ...(await check({ ...(await opened.evidence()), operations, times })), operations }
  } finally {
    await opened.close()
  }
}

/** The exit code of a process ended by SIGKILL, as a shell reports it. */
const KILLED = 137
/** Milliseconds between polls for restarted processes. */
const PROCESS_POLL_MS = 100

/**
 * Reports each process that exits by itself, with a code other than that of SIGKILL: no fault causes any
 * other exit.
 */
function watchExits({ processes }: FragileStack): () => Finding[] {
  const pids = new Set<number>()
  const exits: Finding[] = []
  const poll = () => {
    for (const [subject, { pid, ended }] of processes) {
      if (pids.has(pid)) continue
      pids.add(pid)
      ended.then((code) => {
        const sentence = `exited by itself with code ${code}`
        if (code !== KILLED) exits.push({ invariant: 'process', subject, sentence })
      })
    }
  }
  poll()
  const timer = setInterval(poll, PROCESS_POLL_MS)
  return () => {
    clearInterval(timer)
    return exits
  }
}

function violationsOf(faults: readonly InjectedFault[]): Finding[] {
  return faults.flatMap(({ target, violation }) =>
    violation === undefined ? [] : [{ invariant: 'hold', subject: target, sentence: violation }],
  )
}

/** How many times the text occurs in PostgreSQL's log. */
function countInLog({ stack }: FragileStack, text: string): number {
  const log = readFileSync(join(stack.folder, 'logs', 'postgres.log'), 'utf8')
  return log.split(text).length - 1
}
