import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { STYLES } from '../../../contracts/style.ts'
import { root } from '../../../tools/repository-files.ts'
import { SERVICES } from '../../../tools/stack/options.ts'
import type { BenchStack } from '../bench-stack.ts'
import { inDatabase } from '../books.ts'
import { inShort, type Pace, type Survey, type SurveyTable } from '../contest.ts'
import { usageOf, wakeUpsOf } from '../processes.ts'
import { startProgram } from '../rows/embedded.ts'
import { flowOf, openShop } from '../rows/flow.ts'

export const IDLE: Survey = { name: 'idle', run: surveyIdle }
export const FOOTPRINT: Survey = { name: 'footprint', run: surveyFootprint }

/** Long enough for pools to let their idle connections go. */
const COME_TO_REST_MS = 15_000
const QUICK_REST_MS = 3_000
const IDLE_MS = 30_000
const QUICK_IDLE_MS = 10_000
const MEBIBYTE = 2 ** 20

/** How often a process that has nothing to do wakes up, and what it asks of its database meanwhile. */
async function surveyIdle(stack: BenchStack, { quick }: Pace): Promise<SurveyTable> {
  const { pids } = await stack.serve(SERVICES)
  const program = await freshProgram(stack)
  const processes: Record<string, number> = { ...pids, 'all in one': program.pid }
  await sleep(quick ? QUICK_REST_MS : COME_TO_REST_MS)
  const look = async () => ({
    wakeUps: Object.values(processes).map(wakeUpsOf),
    usage: usageOf(processes),
    transactions: await transactionsOf(stack),
  })
  const before = await look()
  const begunMs = performance.now()
  await sleep(quick ? QUICK_IDLE_MS : IDLE_MS)
  const after = await look()
  const seconds = (performance.now() - begunMs) / 1_000
  const perSecond = (from: number, to: number) => inShort((to - from) / seconds)
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
    title: 'A process that has nothing to do, each second',
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

/** Committed and rolled back, of each service's database. */
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

/** Memory, time to ready, what is installed, and the CPU that 10,000 orders of each style take. */
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
    // Milliseconds for one are seconds for a thousand.
    const text = `${inShort(costs!.all! * 10)} CPU seconds`
    cpuSeconds.push([`10,000 orders in ${style}`, '', '', text])
  }
  const atLoad = usageOf(roots)
  await shop.close()
  const mebibytes = (bytes: number | undefined) => (bytes ? `${inShort(bytes / MEBIBYTE)} MiB` : '')
  const rows = Object.keys(idle).map((name) => [
    name,
    mebibytes(idle[name]!.rssBytes),
    mebibytes(atLoad[name]?.rssBytes),
    ready[name] ? `ready after ${inShort(ready[name] / 1_000)} s` : '',
  ])
  const installed = ['node_modules in production', '', '', mebibytes(installedBytes())]
  return {
    title: 'Footprint (PostgreSQL counts memory that its processes share once for each)',
    head: ['what', 'memory idle', 'memory after load', ''],
    rows: [...rows, ...cpuSeconds, installed],
  }
}

/** What an install without development dependencies brings, by the lock file. */
function installedBytes(): number {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; devOptional?: boolean }>
  }
  const folders = Object.entries(lock.packages)
    .filter(([path, { dev, devOptional }]) => path !== '' && !dev && !devOptional)
    // A package inside another one is counted with that.
    .filter(([path]) => path.lastIndexOf('node_modules/') === 0)
    .map(([path]) => path)
  return folders.reduce((sum, folder) => sum + bytesIn(join(root, folder)), 0)
}

/** Zero where it is not installed, as what is for other systems. */
function bytesIn(folder: string): number {
  if (!existsSync(folder)) return 0
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0)
}
