import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { endWithNpm } from '../../tools/end-with-npm.ts'
import { root } from '../../tools/repository-files.ts'
import { ACCEPT } from './accept.ts'
import { openBenchStack } from './bench-stack.ts'
import { COMPONENT_BENCHES } from './components.ts'
import { alternate, type Bench, type Outcome, type Pace } from './contest.ts'
import { EMBEDDED } from './embedded.ts'
import { FLOW_BENCHES } from './flow.ts'
import { GROWTH } from './growth.ts'
import { OUTAGE_BENCHES } from './outages.ts'
import { costLines, isFarShort, pictureOf, sectionOf, tableOf, withSection } from './report.ts'
import { SETTLE } from './settle.ts'

const BENCHES: readonly Bench[] = [
  ...FLOW_BENCHES,
  ACCEPT,
  ...COMPONENT_BENCHES,
  EMBEDDED,
  SETTLE,
  ...OUTAGE_BENCHES,
  GROWTH,
]

const USAGE = `Usage: npm run bench -- [options]

Measures the services on Kafka and PostgreSQL of their own, in turn with references on the same servers,
and prints the ratios: ${BENCHES.map(({ name }) => name).join(', ')}.

  --only NAME[,NAME]   only these
  --quick              short rounds, and only what does not need minutes; exits with 1 where a ratio is
                       below half of what is to be reached
  --rounds N           pairs of runs that count (3)
  --seconds N          of each run (6)
  --write              puts the table into docs/performance.md as well
  --help               this text
`

interface Options extends Pace {
  readonly benches: readonly Bench[]
  readonly write: boolean
}

/** undefined: only the usage was asked for. */
function optionsOf(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string', default: '' },
      quick: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  const { quick, write } = values
  const names = values.only.split(',').filter(Boolean)
  const unknown = names.filter((name) => !BENCHES.some((bench) => bench.name === name))
  if (unknown.length > 0) throw new Error(`there is no benchmark ${unknown.join(', ')}`)
  const benches = BENCHES.filter(({ name, isLong }) =>
    names.length > 0 ? names.includes(name) : !(quick && isLong),
  )
  return {
    ...{ benches, quick, write },
    rounds: countOf('rounds', values.rounds ?? (quick ? '1' : '3')),
    seconds: countOf('seconds', values.seconds ?? (quick ? '3' : '6')),
  }
}

function countOf(name: string, text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new Error(`--${name} must be a whole number, not ${text}`)
  return Number(text)
}

async function run({ benches, ...pace }: Options): Promise<Outcome[]> {
  const begun = performance.now()
  const say = (line: string) => {
    const seconds = ((performance.now() - begun) / 1_000).toFixed(0).padStart(4)
    console.log(`${seconds} s  ${line}`)
  }
  const stack = await openBenchStack(say)
  endWithNpm()
  const stop = () => void stack.close().finally(() => process.exit(130))
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, stop)
  const outcomes: Outcome[] = []
  try {
    for (const bench of benches) outcomes.push(...(await alternate(bench, stack, pace, say)))
  } finally {
    await stack.close()
  }
  return outcomes
}

/** What programs read, and a picture of each. */
function report(outcomes: readonly Outcome[]): void {
  const folder = join(root, 'reports')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'bench.json'), `${JSON.stringify(outcomes, null, 2)}\n`)
  for (const outcome of outcomes) {
    const file = `bench-${outcome.name.replaceAll(' ', '-')}.svg`
    writeFileSync(join(folder, file), pictureOf(outcome))
  }
}

/** Puts the table into the document that tells of it. */
function document(outcomes: readonly Outcome[], { seconds }: Pace): void {
  const file = join(root, 'docs', 'performance.md')
  const [first] = cpus()
  const gigabytes = Math.round(totalmem() / 2 ** 30)
  const machine = `${cpus().length} cores (${first?.model.trim()}), ${gigabytes} GB, Node ${process.version}`
  const date = new Date().toISOString().slice(0, 10)
  const section = sectionOf(outcomes, { date, machine, seconds })
  writeFileSync(file, withSection(readFileSync(file, 'utf8'), 'bench', section))
}

if (import.meta.main) {
  try {
    const options = optionsOf(process.argv.slice(2))
    if (options === undefined) console.log(USAGE)
    else {
      const outcomes = await run(options)
      report(outcomes)
      if (options.write) document(outcomes, options)
      console.log(`\n${tableOf(outcomes)}\n\n${costLines(outcomes)}`)
      const short = outcomes.filter(isFarShort)
      if (options.quick && short.length > 0) process.exitCode = 1
    }
  } catch (error) {
    console.error(`bench: ${(error as Error).stack}`)
    process.exitCode = 1
  }
}
