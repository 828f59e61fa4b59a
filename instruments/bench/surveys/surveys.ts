import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { STYLES } from '../../../contracts/style.ts'
import { root } from '../../../tools/repository-files.ts'
import { SERVICES } from '../../../tools/stack/options.ts'
import type { BenchStack } from '../bench-stack.ts'
import { inDatabase } from '../books.ts'
import { type Pace, type Survey, type SurveyTable, threeDigits } from '../contest.ts'
import { usageOf, wakeUpsOf } from '../processes.ts'
import { startProgram } from '../rows/embedded.ts'
import { flowOf, openShop } from '../rows/flow.ts'

export const IDLE: Survey = { name: 'idle', run: surveyIdle }
export const FOOTPRINT: Survey = { name: 'footprint', run: surveyFootprint }

/** Long enough for pools to close their idle connections. */
const COME_TO_REST_MS = 15_000
const QUICK_REST_MS = 3_000
const IDLE_MS = 30_000
const QUICK_IDLE_MS = 10_000
const MEBIBYTE = 2 ** 20

/**
 * Measures how often an idle process wakes up, how much CPU time it takes, and how many transactions it
 * makes.
 */
async function surveyIdle(stack: BenchStack, { quick }: Pace): Promise<SurveyTable> {
  const { pids } = await stack.serve(SERVICES)
  const program = await freshProgram(stack)
  const processes: Record<string, number> = { ...pids, 'all in one': program.pid }
  await sleep(quick ? QUICK_REST_MS : COME_TO_REST_MS)
  const sample = async () => ({
    wakeUps: Object.values(processes).map(wakeUpsOf),
    usage: usageOf(processes),
    transactions: await transactionsOf(stack),
  })
  const before = await sample()
  const startedMs = performance.now()
  await sleep(quick ? QUICK_IDLE_MS : IDLE_MS)
  const after = await sample()
  const seconds = (performance.now() - startedMs) / 1_000
  const perSecond = (from: number, to: number) => threeDigits((to - from) / seconds)
  const rows = Object.keys(processes).map((name, index) => [
    name,
    perSecond(before.wakeUps[index]!.mainThread, after.wakeUps[index]!.mainThread),
    perSecond(before.wakeUps[index]!.allThreads, after.wakeUps[index]!.allThreads),
    perSecond(before.usage[name]!.cpuMs, after.usage[name]!.cpuMs),
    name in after.transactions
      ? perSecond(before.transactions[name]!, after.transactions[name]!)
      : 'in the process',
  ])
  await program.stop()
  return {
    title: 'An idle process, per second',
    head: [
      'process',
      'wake-ups of its main thread',
      'of all its threads',
      'CPU ms',
      'transactions',
    ],
    rows,
  }
}

/** The number of transactions, committed or rolled back, of each service's database. */
async function transactionsOf({ urls }: BenchStack): Promise<Record<string, number>> {
  return await inDatabase(urls.reference, async (client) => {
    const { rows } = await client.query<{ name: string; transactions: string }>(
      'select datname as name, xact_commit + xact_rollback as transactions from pg_stat_database',
    )
    const counts = new Map(rows.map(({ name, transactions }) => [name, Number(transactions)]))
    return Object.fromEntries(
      SERVICES.map((name) => [name, counts.get(new URL(urls[name]).pathname.slice(1))!]),
    )
  })
}

async function freshProgram({ folder }: BenchStack) {
  const data = join(folder, 'program')
  rmSync(data, { recursive: true, force: true })
  return await startProgram(data)
}

/** Measures memory, the time until ready, size on disk, and the CPU time of 10,000 orders in each style. */
async function surveyFootprint(stack: BenchStack, pace: Pace): Promise<SurveyTable> {
  await stack.serve([])
  const { pids, readyMs } = await stack.serve(SERVICES)
  const program = await freshProgram(stack)
  const roots: Record<string, number> = {
    ...pids,
    kafka: stack.kafka.pid,
    PostgreSQL: stack.postgres.pid,
  }
  await sleep(QUICK_REST_MS)
  const idle = usageOf({ ...roots, 'all in one': program.pid })
  await program.stop()
  const ready: Record<string, number> = { ...readyMs, 'all in one': program.readyMs }
  const shop = await openShop(stack)
  const cpuSeconds: (readonly string[])[] = []
  for (const style of STYLES) {
    const flow = flowOf(style)
    await stack.openBooks(flow.accounts)
    await shop.settle(flow, pace.seconds)
    const { costs } = await shop.settle(flow, pace.seconds)
    // Milliseconds per order are seconds per thousand orders.
    const text = `${threeDigits(costs!.all! * 10)} CPU seconds`
    cpuSeconds.push([`10,000 orders in ${style}`, '', '', text])
  }
  const atLoad = usageOf(roots)
  await shop.close()
  const mebibytes = (bytes: number | undefined) =>
    bytes ? `${threeDigits(bytes / MEBIBYTE)} MiB` : ''
  const rows = Object.keys(idle).map((name) => [
    name,
    mebibytes(idle[name]!.rssBytes),
    mebibytes(atLoad[name]?.rssBytes),
    ready[name] ? `ready after ${threeDigits(ready[name] / 1_000)} s` : '',
  ])
  const installed = ['node_modules in production', '', '', mebibytes(installedBytes())]
  return {
    title: 'Footprint (memory that PostgreSQL processes share is counted once for each of them)',
    head: ['what', 'memory idle', 'memory after load', ''],
    rows: [...rows, ...cpuSeconds, installed],
  }
}

/** The size of an install without development dependencies, by the lock file. */
function installedBytes(): number {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; devOptional?: boolean }>
  }
  const folders = Object.entries(lock.packages)
    .filter(([path, { dev, devOptional }]) => path !== '' && !dev && !devOptional)
    // A nested package is counted with the package that contains it.
    .filter(([path]) => path.lastIndexOf('node_modules/') === 0)
    .map(([path]) => path)
  return folders.reduce((sum, folder) => sum + bytesIn(join(root, folder)), 0)
}

/** Zero for a folder that is not installed, such as a package for another platform. */
function bytesIn(folder: string): number {
  if (!existsSync(folder)) return 0
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0)
}
