import { rmSync } from 'node:fs'
import { join } from 'node:path'
import type { InteractionStyle } from '../../../contracts/style.ts'
import { startStackIn } from '../../../tests/e2e/stack-program.ts'
import type { BenchStack } from '../bench-stack.ts'
import { accountIds, assertBooks, markBooks, openBooks, settled } from '../books.ts'
import { type Pace, type Survey, type SurveyTable, threeDigits } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import { usageOf } from '../processes.ts'
import type { Load, LoadResult } from '../programs/load.ts'
import { SETTLE_LIMIT_MS } from '../rows/flow.ts'

/**
 * What an order costs on `npm run stack` with its defaults: nginx in front of the services and between them, the
 * default log level, and as many clients as an ordinary load test has.
 */
export const ORDINARY: Survey = { name: 'ordinary', run: surveyOrdinary }

const CONNECTIONS = 64
const ACCOUNTS = 1_000
const WARM_UP_SECONDS = 5
const ONE_OF_EACH = { order: 1, billing: 1, notification: 1 }
/** CPU milliseconds per order over all processes of the stack. */
const MARKS = {
  events: { reach: 0.45, aim: 0.35 },
  http: { reach: 1.6, aim: 1 },
  hybrid: { reach: 1.1, aim: 0.8 },
} satisfies Partial<Record<InteractionStyle, { readonly reach: number; readonly aim: number }>>

async function surveyOrdinary(bench: BenchStack, pace: Pace): Promise<SurveyTable> {
  // The bench's own services stop, so that the measured stack has the machine to itself.
  await bench.serve([])
  const folder = join(bench.folder, 'ordinary')
  rmSync(folder, { recursive: true, force: true })
  const stack = await startStackIn(folder, ONE_OF_EACH, {})
  const customers = await startMeasured<Load, LoadResult>('load.ts')
  const services = stack.replicas.map(({ service, server }) => [service, server.pid])
  const servers = {
    nginx: stack.nginxPid,
    kafka: stack.kafka!.pid,
    PostgreSQL: stack.postgres!.pid,
  }
  const roots: Record<string, number> = { ...Object.fromEntries(services), ...servers }
  const urls = {
    order: asSuperuser(stack.databaseUrls.order),
    billing: asSuperuser(stack.databaseUrls.billing),
    notification: asSuperuser(stack.databaseUrls.notification),
  }

  async function settle(style: InteractionStyle, seconds: number) {
    const mark = await markBooks(urls)
    const load = { url: stack.url, style, connections: CONNECTIONS, accounts: accountIds(ACCOUNTS) }
    const before = usageOf(roots)
    const startedMs = performance.now()
    const { accepted } = await customers.run({ ...load, seconds })
    await settled(urls, mark, accepted, SETTLE_LIMIT_MS)
    const perSecond = (accepted * 1_000) / (performance.now() - startedMs)
    const after = usageOf(roots)
    await assertBooks(urls, mark, accepted)
    const cpuMs = Object.keys(roots).map(
      (name) => (after[name]!.cpuMs - before[name]!.cpuMs) / accepted,
    )
    return { perSecond, cpuMs }
  }

  const rows: string[][] = []
  try {
    await openBooks(urls, ACCOUNTS)
    for (const style of Object.keys(MARKS) as (keyof typeof MARKS)[]) {
      await settle(style, pace.quick ? pace.seconds : WARM_UP_SECONDS)
      const { perSecond, cpuMs } = await settle(style, pace.seconds)
      const all = cpuMs.reduce((sum, ms) => sum + ms, 0)
      const { reach, aim } = MARKS[style]
      const reached = all <= aim ? 'aim' : all <= reach ? 'yes' : 'no'
      const figures = [threeDigits(perSecond), threeDigits(all), `≤ ${reach}`, `≤ ${aim}`, reached]
      rows.push([style, ...figures, ...cpuMs.map(threeDigits)])
      bench.say(`ordinary: ${rows.at(-1)!.join(', ')}`)
    }
  } finally {
    await customers.close()
    await stack.close()
  }
  return {
    title: `Ordinary use: \`npm run stack\` with its defaults, ${CONNECTIONS} connections through nginx`,
    head: [
      'style',
      'orders settled/s',
      'CPU ms per order',
      'reach',
      'aim',
      'reached',
      ...Object.keys(roots),
    ],
    rows,
  }
}

/** Only a superuser may run CHECKPOINT. */
function asSuperuser(databaseUrl: string): string {
  const url = new URL(databaseUrl)
  url.username = 'postgres'
  return url.href
}
