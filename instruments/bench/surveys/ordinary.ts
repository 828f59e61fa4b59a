import { rmSync } from 'node:fs'
import { join } from 'node:path'
import type { InteractionStyle } from '../../../contracts/style.ts'
import { startStackIn } from '../../../tests/e2e/stack-program.ts'
import { superuserUrl } from '../../../tools/servers/postgres.ts'
import type { BenchStack } from '../bench-stack.ts'
import { openBooks } from '../books.ts'
import { type Pace, type Survey, type SurveyTable, threeDigits } from '../contest.ts'
import { EVENTS, openShopAt } from '../rows/flow.ts'

/**
 * Measures the cost of an order on `npm run stack` with its defaults: nginx in front of the services and
 * between them, the default log level, and as many clients as in an ordinary load test.
 */
export const ORDINARY: Survey = { name: 'ordinary', run: surveyOrdinary }

const CONNECTIONS = 64
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
  const services = stack.replicas.map(({ service, server }) => [service, server.pid])
  const servers = {
    nginx: stack.nginxPid,
    kafka: stack.kafka!.pid,
    PostgreSQL: stack.postgres!.pid,
  }
  const roots: Record<string, number> = { ...Object.fromEntries(services), ...servers }
  // Only the superuser may run CHECKPOINT.
  const databases = {
    order: superuserUrl(stack.databaseUrls.order),
    billing: superuserUrl(stack.databaseUrls.billing),
    notification: superuserUrl(stack.databaseUrls.notification),
  }
  const shop = await openShopAt({ url: stack.url, databases, roots })

  const rows: string[][] = []
  try {
    await openBooks(databases, EVENTS.accounts)
    for (const style of Object.keys(MARKS) as (keyof typeof MARKS)[]) {
      const flow = { ...EVENTS, style, connections: CONNECTIONS }
      await shop.settle(flow, pace.quick ? pace.seconds : WARM_UP_SECONDS)
      const { figure, costs } = await shop.settle(flow, pace.seconds)
      const all = costs!.all!
      const { reach, aim } = MARKS[style]
      const reached = all <= aim ? 'aim' : all <= reach ? 'yes' : 'no'
      const figures = [threeDigits(figure), threeDigits(all), `≤ ${reach}`, `≤ ${aim}`, reached]
      rows.push([
        style,
        ...figures,
        ...Object.keys(roots).map((name) => threeDigits(costs![name]!)),
      ])
      bench.say(`ordinary: ${rows.at(-1)!.join(', ')}`)
    }
  } finally {
    await shop.close()
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
