import { parseArgs } from 'node:util'
import { STYLES } from '../../contracts/style.ts'
import { createClient } from './client.ts'
import { openLab } from './lab-switch.ts'
import { servicesAreOff } from './outages.ts'
import { everythingRuns } from './scenes.ts'
import { createTable } from './table.ts'
import { findTarget, type TargetOptions } from './target.ts'

const USAGE = `Usage: npm run demo -- [options]

Takes one order flow through the interaction styles (${STYLES.join(', ')}), side by side, and
compares what it sees with what the design promises. Exit code: 0 all promises were kept, 1 some
were not, 2 wrong options, above 128 interrupted.

  --url URL        the program to drive; by default the one that npm start would start here, at
                   http://127.0.0.1:8000 or the HOST and PORT of the environment or .env; if it does
                   not answer, one of the demo's own, in a temporary folder that is removed
  --own            a program of the demo's own, whatever is there already
  --wait SECONDS   how long to wait for what has to happen (10)
  --help           this text

NO_COLOR=1 leaves out colors. Services that the demo switches off are switched on again.
`

const EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const
/** A signal that comes so soon after the first is the same one: npm passes on what we have too. */
const SAME_SIGNAL_MS = 500
const interrupted = new AbortController()
let interruptedAt = 0

for (const signal of Object.keys(EXIT_CODES) as (keyof typeof EXIT_CODES)[]) {
  process.on(signal, () => {
    const again = interrupted.signal.aborted
    if (again && performance.now() - interruptedAt < SAME_SIGNAL_MS) return
    if (again) process.exit()
    interruptedAt = performance.now()
    process.exitCode = EXIT_CODES[signal]
    interrupted.abort(new Error('interrupted'))
  })
}
// Who reads us may leave (`| head`); what is switched off is switched on again all the same.
process.stdout.on('error', (error) => interrupted.abort(error))

try {
  const exitCode = await main()
  process.exitCode ??= exitCode
} catch (error) {
  console.log(`\nThe demo could not go on: ${messageOf(error as Error)}`)
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

/** Plays all scenes and returns the exit code. */
async function perform(url: string, waitMs: number): Promise<number> {
  const begun = performance.now()
  const client = createClient(url, waitMs, interrupted.signal)
  const lab = await openLab(client)
  const table = createTable()
  const answerMs = await everythingRuns(client, table)
  if (typeof lab === 'string') {
    console.log(`\n${lab}:\nthe scenes in which services are switched off are left out.`)
  } else {
    await servicesAreOff(client, table, lab)
  }
  const seconds = ((performance.now() - begun) / 1000).toFixed(1)
  return table.conclude(answerMs, seconds) ? 0 : 1
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
    if (url !== undefined && own) return 'give --url or --own, not both'
    if (url !== undefined && !/^https?:$/.test(URL.parse(url)?.protocol ?? '')) {
      return `--url must be an http address, not ${url}`
    }
    const waitMs = Number(wait) * 1000
    if (!(waitMs > 0 && waitMs <= 600_000)) return `--wait must be above 0 and at most 600: ${wait}`
    return { own, waitMs, help, ...(url && { url: url.replace(/\/+$/, '') }) }
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
