import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '../../../tests/e2e/client.ts'
import { SERVICES } from '../../../tools/stack/options.ts'
import type { BenchStack, NodeSettings } from '../bench-stack.ts'
import { accountIds, openBooks } from '../books.ts'
import { type Pace, type Survey, type SurveyTable, threeDigits } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import { usageOf } from '../processes.ts'
import type { Load, LoadResult } from '../programs/load.ts'
import type { PacedLoad, PacedResult } from '../programs/paced-load.ts'
import { startProgram } from '../rows/embedded.ts'
import { percentile } from '../statistics.ts'

/**
 * Measures the memory of the processes after many orders, and how long orders then take to settle, with
 * different flags and environments of Node.js. `process.ts` sets its own flags unless the command line does.
 */
export const MEMORY: Survey = { name: 'memory', isLong: true, run: surveyMemory }

const VARIANTS: readonly (NodeSettings & { readonly name: string })[] = [
  { name: 'as the stack starts them' },
  { name: "V8's own semi-spaces", env: { NODE_OPTIONS: '' } },
  { name: 'semi-spaces of 8 MB', flags: ['--max-semi-space-size=8'] },
  {
    name: "V8's own growth of the old generation",
    flags: ['--heap-growing-percent=0', '--incremental-marking'],
  },
  { name: 'growth of 50 %', flags: ['--heap-growing-percent=50'] },
  { name: 'for size', flags: ['--optimize-for-size'] },
  { name: 'one thread for V8', flags: ['--v8-pool-size=1'] },
  { name: 'two malloc arenas', env: { MALLOC_ARENA_MAX: '2' } },
]
const ORDERS = 100_000
const QUICK_ORDERS = 5_000
const CONNECTIONS = 64
const ACCOUNTS = 1_000
const PROGRAM_ACCOUNTS = 100
const DEPOSIT = 1_000_000
/** Orders per second while the time to settle is measured, far below the highest rate. */
const PER_SECOND = 50
const MEBIBYTE = 2 ** 20

async function surveyMemory(stack: BenchStack, pace: Pace): Promise<SurveyTable> {
  const orders = pace.quick ? QUICK_ORDERS : ORDERS
  const customers = await startMeasured<Load, LoadResult>('load.ts')
  const visitors = await startMeasured<PacedLoad, PacedResult>('paced-load.ts')
  const rows: string[][] = []

  async function measure(name: string, target: Target): Promise<string[]> {
    const { url, accounts, pids } = target
    const style = 'events'
    const load = { url, style, connections: CONNECTIONS, accounts, orders, seconds: 600 }
    const { accepted, seconds } = await customers.run(load)
    const visit = {
      url,
      accounts,
      seconds: pace.quick ? 2 : 20,
      perSecond: PER_SECOND,
      waits: true,
    }
    const { approved } = await visitors.run({ ...visit, style })
    const memory = Object.entries(usageOf(pids)).map(
      ([process, { rssBytes }]) => `${process} ${threeDigits(rssBytes / MEBIBYTE)}`,
    )
    const row = [name, memory.join(', ')]
    return [...row, threeDigits(accepted / seconds), threeDigits(percentile(approved.tookMs, 0.99))]
  }

  for (const variant of VARIANTS) {
    for (const open of [openServices, openProgram]) {
      const target = await open(stack, variant)
      rows.push(await measure(variant.name, target))
      stack.say(`memory: ${rows.at(-1)!.join(', ')}`)
      await target.close()
    }
  }
  await Promise.all([customers.close(), visitors.close()])
  return {
    title: `Memory after ${threeDigits(orders)} orders in events, by the flags and environment of Node.js`,
    head: ['Node.js', 'memory, MiB', 'orders/s accepted', 'p99 to settle, ms'],
    rows,
  }
}

interface Target {
  readonly url: string
  readonly accounts: readonly string[]
  readonly pids: Readonly<Record<string, number>>
  close(): Promise<unknown>
}

async function openServices(stack: BenchStack, { flags, env }: NodeSettings): Promise<Target> {
  const { urls, pids } = await stack.serve(SERVICES, env, flags)
  await openBooks(stack.urls, ACCOUNTS)
  return { url: urls.order, pids, accounts: accountIds(ACCOUNTS), close: () => stack.serve([]) }
}

async function openProgram(stack: BenchStack, node: NodeSettings): Promise<Target> {
  const folder = join(stack.folder, 'program')
  rmSync(folder, { recursive: true, force: true })
  const program = await startProgram(folder, node)
  const client = createClient(program.url)
  const accounts: string[] = []
  while (accounts.length < PROGRAM_ACCOUNTS) accounts.push(await client.fundedAccount(DEPOSIT))
  return { url: program.url, accounts, pids: { program: program.pid }, close: program.stop }
}
