import { parseArgs } from 'node:util'
import { createClient } from './client.ts'
import { openLab } from './lab-switch.ts'
import { billingIsOff, notificationIsOff } from './outages.ts'
import { orderIsPaid, orderIsRefused, warmUp } from './scenes.ts'
import { createTable } from './table.ts'
import { findTarget, type Target } from './target.ts'

const DEFAULT_URL = 'http://127.0.0.1:8000'

const USAGE = `Usage: npm run demo -- [options]

Takes one order flow through the interaction styles http, hybrid and events, side by side, and
compares what it sees with what the design promises. Exit code: 0 all promises were kept, 1 some
were not, 2 wrong options, 130 or 143 interrupted.

  --url URL        the program to drive; without it the one at ${DEFAULT_URL},
                   or one of the demo's own, in a temporary folder that is removed afterwards
  --wait SECONDS   how long to wait for what has to happen (10)
  --help           this text

NO_COLOR=1 leaves out colors. Services that the demo switches off are switched on again.
`

const signals = { SIGINT: 130, SIGTERM: 143 } as const
const interrupted = new AbortController()
for (const signal of Object.keys(signals) as (keyof typeof signals)[]) {
  // Once: a second signal ends the process at once.
  process.once(signal, () => interrupted.abort(signal))
}

process.exitCode = await main().catch((error: Error) => {
  if (interrupted.signal.aborted) {
    console.log('\nInterrupted; what was switched off is on again.')
    return signals[interrupted.signal.reason as keyof typeof signals]
  }
  console.log(`\nThe demo could not go on: ${messageOf(error)}`)
  return 1
})

async function main(): Promise<number> {
  const options = readOptions()
  if (typeof options === 'string') {
    console.error(`${options}\n\n${USAGE}`)
    return 2
  }
  if (options.help) {
    console.log(USAGE)
    return 0
  }
  console.log('Trifold: one order flow in three interaction styles, on the same services and data\n')
  const target = await findTarget(options.url, DEFAULT_URL, options.waitMs, interrupted.signal)
  try {
    return await perform(target, options.waitMs)
  } finally {
    await target.close()
  }
}

/** Plays all scenes and returns the exit code. */
async function perform({ url }: Target, waitMs: number): Promise<number> {
  const begun = performance.now()
  const client = createClient(url, waitMs, interrupted.signal)
  const lab = await openLab(client)
  await warmUp(client)
  const table = createTable()
  const answered = await orderIsPaid(client, table)
  await orderIsRefused(client, table)
  if (typeof lab === 'string') {
    console.log(`\n${lab}:\nthe scenes in which services are switched off are left out.`)
  } else {
    await notificationIsOff(client, table, lab)
    await billingIsOff(client, table, lab)
  }
  const seconds = ((performance.now() - begun) / 1000).toFixed(1)
  return table.conclude(answered, seconds) ? 0 : 1
}

function readOptions(): { url?: string; waitMs: number; help: boolean } | string {
  try {
    const { values } = parseArgs({
      options: {
        url: { type: 'string' },
        wait: { type: 'string', default: '10' },
        help: { type: 'boolean', default: false },
      },
    })
    const { url, wait, help } = values
    if (url !== undefined && !/^https?:$/.test(URL.parse(url)?.protocol ?? '')) {
      return `--url must be an http address, not ${url}`
    }
    const waitMs = Number(wait) * 1000
    if (!(waitMs > 0 && waitMs <= 600_000)) return `--wait must be above 0 and at most 600: ${wait}`
    return { waitMs, help, ...(url && { url: url.replace(/\/+$/, '') }) }
  } catch (error) {
    return messageOf(error as Error)
  }
}

/** With its cause: fetch only says that it failed. */
function messageOf(error: Error): string {
  const { message, cause } = error
  const reason = cause instanceof Error ? cause.message || (cause as { code?: string }).code : ''
  return reason ? `${message}: ${reason}` : message
}
