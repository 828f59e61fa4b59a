import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { flowOf, type InteractionStyle, STYLES } from '../../../contracts/style.ts'
import { createClient } from '../../../tests/e2e/client.ts'
import { SERVICES } from '../../../tools/stack/options.ts'
import type { BenchStack } from '../bench-stack.ts'
import { accountIds, openBooks } from '../books.ts'
import { type Pace, type Survey, type SurveyTable, threeDigits } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import type { OverloadLoad, PhaseResult } from '../programs/overload-load.ts'
import { startProgram } from '../rows/embedded.ts'

/**
 * Sends requests from clients with two seconds of patience, at one, two and four times the capacity, then at
 * half of the capacity. The capacity is measured just before, with clients that each wait for their response.
 */
export const OVERLOAD: Survey = {
  name: 'overload',
  isLong: true,
  isQuick: true,
  run: surveyOverload,
}

const PATIENCE_MS = 2_000
const SHARED_CONNECTIONS = 400
/** The number of clients that measure the capacity, each with one request at a time. */
const CLIENTS = { id: 256, outcome: 64 }
const OWN_CLIENTS = 64
const ACCOUNTS = 1_000
const PROGRAM_ACCOUNTS = 100
const DEPOSIT = 1_000_000
const WARM_UP_SECONDS = 5
const MEBIBYTE = 2 ** 20
/**
 * The goodput that CI demands in one of a few attempts: enough to notice a collapse on a machine that other
 * work slows down. docs/performance.md has the mark for a quiet machine.
 */
const MIN_GOODPUT = 0.2
const MAX_ATTEMPTS = 3

interface Case {
  readonly where: 'stack' | 'all in one'
  readonly style: InteractionStyle
  readonly connections: 'shared' | 'own'
}

const CASES: readonly Case[] = (['stack', 'all in one'] as const).flatMap((where) =>
  STYLES.flatMap((style) =>
    (['shared', 'own'] as const).map((connections) => ({ where, style, connections })),
  ),
)
/**
 * `events` is left out: an order costs so little that rejecting four times the capacity takes most of two
 * cores.
 */
const QUICK_CASES: readonly Case[] = [{ where: 'stack', style: 'http', connections: 'shared' }]

async function surveyOverload(stack: BenchStack, pace: Pace): Promise<SurveyTable> {
  const seconds = pace.quick ? pace.seconds : pace.seconds * 5
  const rows: string[][] = []
  const findings: string[] = []
  for (const one of pace.quick ? QUICK_CASES : CASES) {
    let collapsed = true
    for (let attempt = 1; collapsed && attempt <= (pace.quick ? MAX_ATTEMPTS : 1); attempt += 1) {
      const row = await measure(stack, one, seconds)
      stack.say(`overload: ${row.join(', ')}`)
      rows.push(row)
      const [, , , , twice, fourTimes] = row
      collapsed = Math.min(Number(twice), Number(fourTimes)) < MIN_GOODPUT
    }
    if (collapsed) {
      const { where, style, connections } = one
      findings.push(
        `overload: goodput of ${where}, ${style}, ${connections} is below ${MIN_GOODPUT}`,
      )
    }
  }
  return {
    title: `Overload: clients with ${PATIENCE_MS / 1_000} s of patience, ${seconds} s at 1, 2 and 4 times the capacity, then at half of it`,
    head: [
      'where',
      'style',
      'connections',
      'capacity, orders/s',
      'goodput at 2×, of the capacity',
      'at 4×',
      'served p99, ms',
      'rejected p50, ms',
      'rejected p99, ms',
      'CPU of a rejection, of an order',
      'answered in time at 4×, share',
      'normal after, s',
      'memory, MiB',
      'load generator',
    ],
    rows,
    findings,
  }
}

async function measure(stack: BenchStack, one: Case, seconds: number): Promise<string[]> {
  const target = one.where === 'stack' ? await openServices(stack) : await openProgram(stack)
  const clients = await startMeasured<OverloadLoad, PhaseResult[]>('overload-load.ts')
  try {
    const shared = one.connections === 'shared'
    const load = {
      url: target.url,
      pids: target.pids,
      accounts: target.accounts,
      style: one.style,
      connections: shared ? SHARED_CONNECTIONS : ('own' as const),
      patienceMs: PATIENCE_MS,
    }
    const closed = { clients: shared ? CLIENTS[flowOf(one.style).response] : OWN_CLIENTS }
    const [, idle] = await clients.run({
      ...load,
      phases: [
        { ...closed, seconds: Math.min(seconds, WARM_UP_SECONDS) },
        { ...closed, seconds: Math.min(seconds, 2 * WARM_UP_SECONDS) },
      ],
    })
    const capacity = idle!.good / idle!.seconds
    const phases = [1, 2, 4, 0.5].map((times) => ({ seconds, perSecond: times * capacity }))
    const [once, twice, fourTimes, half] = await clients.run({ ...load, phases })
    const { where, style, connections } = one
    return [where, style, connections, ...figuresOf(idle!, once!, twice!, fourTimes!, half!)]
  } finally {
    await clients.close()
    await target.close()
  }
}

function figuresOf(idle: PhaseResult, ...phases: PhaseResult[]): string[] {
  const [, twice, fourTimes, half] = phases as [PhaseResult, PhaseResult, PhaseResult, PhaseResult]
  const capacity = idle.good / idle.seconds
  const goodput = ({ good, seconds }: PhaseResult) => (good / seconds / capacity).toFixed(2)
  const orderMs = idle.cpuMs / idle.good
  const rejectionMs = (fourTimes.cpuMs - fourTimes.good * orderMs) / fourTimes.rejected
  const lagMs = Math.max(...phases.map((phase) => phase.lagMs))
  const load = Math.max(...phases.map((phase) => phase.load))
  const memory = Object.keys(half.rssBytes).map((name) => {
    const most = Math.max(...phases.map(({ rssBytes }) => rssBytes[name]!))
    return `${name} ${threeDigits(most / MEBIBYTE)}`
  })
  return [
    threeDigits(capacity),
    goodput(twice),
    goodput(fourTimes),
    threeDigits(Math.max(twice.servedMs.p99, fourTimes.servedMs.p99)),
    threeDigits(fourTimes.rejectedMs.p50),
    threeDigits(fourTimes.rejectedMs.p99),
    `${((100 * Math.max(0, rejectionMs)) / orderMs).toFixed(0)} %`,
    (1 - (fourTimes.late + fourTimes.failed) / fourTimes.sent).toFixed(2),
    threeDigits(half.normalAfterMs / 1_000),
    memory.join(', '),
    `${(100 * load).toFixed(0)} % CPU, ${threeDigits(lagMs)} ms late${lagMs > 50 ? ': the bottleneck' : ''}`,
  ]
}

async function openServices(stack: BenchStack) {
  const { urls, pids } = await stack.serve(SERVICES)
  await openBooks(stack.urls, ACCOUNTS)
  return { url: urls.order, pids, accounts: accountIds(ACCOUNTS), close: async () => undefined }
}

async function openProgram(stack: BenchStack) {
  await stack.serve([])
  const folder = join(stack.folder, 'program')
  rmSync(folder, { recursive: true, force: true })
  const program = await startProgram(folder)
  const client = createClient(program.url)
  const accounts: string[] = []
  while (accounts.length < PROGRAM_ACCOUNTS) accounts.push(await client.fundedAccount(DEPOSIT))
  const pids = { program: program.pid }
  return { url: program.url, pids, accounts, close: async () => void (await program.stop()) }
}
