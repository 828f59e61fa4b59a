import { parseArgs } from 'node:util'
import { STYLES } from '../../contracts/style.ts'
import { createClient } from './client.ts'
import { openLab } from './lab-switch.ts'
import { servicesAreOff } from './outages.ts'
import { everythingRuns } from './scenes.ts'
import { createTable } from './table.ts'
import { findTarget, type TargetOptions } from './target.ts'

const USAGE = `Usage: npm run demo -- [options]

Runs one order flow in the interaction styles (${STYLES.join(', ')}), side by side, and compares
what it sees with what the design promises. Services that it switches off are switched on again.

  --url URL        the program to drive; by default the one at http://127.0.0.1:8000, or at HOST and
                   PORT of the environment or .env. If none is running there, the demo starts its own,
                   in a temporary folder that it removes
  --own            always start a program of the demo's own
  --wait SECONDS   how long to wait for an expected result; 10 by default
  --help           print this text

Exit code: 0 all promises were kept, 1 some were not, 2 wrong options, above 128 interrupted.
NO_COLOR=1 turns off colors.
`

const EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const
/** A second signal within this many milliseconds is the first one, passed on by npm. */
const SAME_SIGNAL_MS = 500
const interrupted = new AbortController()
let interruptedAt = 0

for (const signal of Object.keys(EXIT_CODES) as (keyof typeof EXIT_CODES)[]) {
  process.on(signal, () => {
    const isSecond = interrupted.signal.aborted
    if (isSecond && performance.now() - interruptedAt < SAME_SIGNAL_MS) return
    if (isSecond) process.exit()
    interruptedAt = performance.now()
    process.exitCode = EXIT_CODES[signal]
    interrupted.abort(new Error('interrupted'))
  })
}
// The reader of the output may exit early, such as `head`. An interruption switches all services on again.
process.stdout.on('error', (error) => interrupted.abort(error))

try {
  const exitCode = await main()
  process.exitCode ??= exitCode
} catch (error) {
  console.log(`\nThe demo failed: ${messageOf(error as Error)}`)
  process.exitCode ??= 1
}

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
  console.log(
    'Trifold: one order flow in three interaction styles, on the same services and data\n',
  )
  const target = await findTarget(options, interrupted.signal)
  try {
    return await perform(target.url, options.waitMs)
  } finally {
    await target.close()
  }
}

/** Runs all scenes and returns the exit code. */
async function perform(url: string, waitMs: number): Promise<number> {
  const startedMs = performance.now()
  const client = createClient(url, waitMs, interrupted.signal)
  const lab = await openLab(client)
  const table = createTable()
  const responseMs = await everythingRuns(client, table)
  if (typeof lab === 'string') {
    console.log(`\n${lab},\nso the scenes in which services are switched off are skipped.`)
  } else {
    await servicesAreOff(client, table, lab)
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1)
  return table.conclude(responseMs, seconds) ? 0 : 1
}

function readOptions(): (TargetOptions & { readonly help: boolean }) | string {
  try {
    const { values } = parseArgs({
      options: {
        url: { type: 'string' },
        own: { type: 'boolean', default: false },
        wait: { type: 'string', default: '10' },
        help: { type: 'boolean', default: false },
      },
    })
    const { url, own, wait, help } = values
    if (url !== undefined && own) return 'use --url or --own, not both'
    if (url !== undefined && !/^https?:$/.test(URL.parse(url)?.protocol ?? '')) {
      return `--url must be an http or https URL, not ${url}`
    }
    const waitMs = Number(wait) * 1000
    if (!(waitMs > 0 && waitMs <= 600_000))
      return `--wait must be above 0 and at most 600, not ${wait}`
    return { own, waitMs, help, ...(url && { url: url.replace(/\/+$/, '') }) }
  } catch (error) {
    return messageOf(error as Error)
  }
}

/** Adds the cause of an error, because the message of a failed fetch does not say why it failed. */
function messageOf(error: Error): string {
  const { message, cause } = error
  const reason = cause instanceof Error ? cause.message || (cause as { code?: string }).code : ''
  return reason ? `${message}: ${reason}` : message
}
