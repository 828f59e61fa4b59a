import { setTimeout as sleep } from 'node:timers/promises'
import { STYLES } from '../../../contracts/style.ts'
import { SERVICES } from '../../../tools/stack/options.ts'
import type { BenchStack } from '../bench-stack.ts'
import { accountIds, inDatabase } from '../books.ts'
import { type Pace, type Survey, type SurveyTable, threeDigits } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import { usageOf } from '../processes.ts'
import type { PacedLoad, PacedResult } from '../programs/paced-load.ts'
import { EVENTS, openShop } from '../rows/flow.ts'
import { spreadOf } from '../statistics.ts'

/**
 * Places orders at half of the highest rate of `http`, for half an hour, in all styles in turn. Reports the
 * memory of the processes and the size of the tables that hold unfinished work. Tables that keep rows forever
 * (orders, payments, notices) grow and are left out.
 */
export const LEAK: Survey = { name: 'leak', isLong: true, run: surveyLeak }

const MINUTES = 30
const SHARE_OF_SATURATION = 0.5
const SAMPLE_PERIOD_MS = 10_000
const TURN_SECONDS = 20
/** The share of the samples that is discarded, while code is compiled and pools and caches fill. */
const WARM_UP_SHARE = 0.2
const MEBIBYTE = 2 ** 20

type Sample = Readonly<Record<string, number>>

async function surveyLeak(stack: BenchStack, pace: Pace): Promise<SurveyTable> {
  const minutes = pace.minutes ?? MINUTES
  const shop = await openShop(stack)
  await stack.openBooks(EVENTS.accounts)
  const { figure } = await shop.settle({ ...EVENTS, style: 'http', connections: 64 }, pace.seconds)
  await shop.close()
  const { pids, urls } = shop
  const perSecond = figure * SHARE_OF_SATURATION
  const customers = await startMeasured<PacedLoad, PacedResult>('paced-load.ts')
  const untilMs = performance.now() + minutes * 60_000
  let orders = 0

  async function runLoad(): Promise<void> {
    const accounts = accountIds(EVENTS.accounts)
    for (let turn = 0; performance.now() < untilMs; turn += 1) {
      const style = STYLES[turn % STYLES.length]!
      const load = { url: urls.order, style, perSecond, seconds: TURN_SECONDS, accounts }
      const { acceptedMs, failed } = await customers.run({ ...load, waits: false })
      if (failed > 0) throw new Error(`${failed} orders failed in ${style}`)
      orders += acceptedMs.length
    }
  }

  const loading = runLoad()
  const samples: Sample[] = []
  while (performance.now() < untilMs) {
    await Promise.race([sleep(SAMPLE_PERIOD_MS), loading])
    samples.push({ ...memoryOf(pids), ...(await tablesOf(stack)) })
  }
  await loading
  await customers.close()
  const rate = `${threeDigits(orders)} orders in ${minutes} minutes, all styles in turn`
  return {
    title: `Memory of the processes and size of the tables of unfinished work, MiB: ${rate}`,
    head: ['process or table', 'first fifth after the warm-up', 'last fifth', 'maximum'],
    rows: rowsOf(samples),
  }
}

function memoryOf(pids: Readonly<Record<string, number>>): Sample {
  const usage = Object.entries(usageOf(pids))
  return Object.fromEntries(usage.map(([name, { rssBytes }]) => [name, rssBytes / MEBIBYTE]))
}

/** Sizes of the tables of all services, including their indexes. */
async function tablesOf({ urls }: BenchStack): Promise<Sample> {
  const sizes: Record<string, number> = {}
  for (const service of SERVICES) {
    await inDatabase(urls[service], async (client) => {
      const { rows } = await client.query<{ name: string; bytes: string }>(
        `select format('%I.%I', schemaname, tablename) as name,
           pg_total_relation_size(format('%I.%I', schemaname, tablename)::regclass) as bytes
         from pg_tables
         where schemaname in ('orders', 'billing', 'notification') and tablename in
           ('outbox', 'watch', 'void_watch', 'dead_letter', 'account', 'account_clock', 'relay_lane')`,
      )
      for (const { name, bytes } of rows) sizes[name] = Number(bytes) / MEBIBYTE
    })
  }
  return sizes
}

function rowsOf(samples: readonly Sample[]): string[][] {
  const warm = samples.slice(Math.floor(samples.length * WARM_UP_SHARE))
  const fifth = Math.max(1, Math.floor(warm.length / 5))
  return Object.keys(warm[0]!).map((name) => {
    const values = warm.map((sample) => sample[name]!)
    const first = spreadOf(values.slice(0, fifth)).median
    const last = spreadOf(values.slice(-fifth)).median
    return [name, ...[first, last, Math.max(...values)].map(threeDigits)]
  })
}
