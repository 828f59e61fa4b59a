import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { inspect, parseArgs } from 'node:util'
import { root } from '../../tools/repository-files.ts'
import { openBenchStack } from './bench-stack.ts'
import {
  alternate,
  type Bench,
  isFarShort,
  type Outcome,
  type Pace,
  type Survey,
  type SurveyTable,
} from './contest.ts'
import {
  costLines,
  inColumns,
  markdownTable,
  pictureOf,
  sectionOf,
  tableOf,
  withSection,
} from './report.ts'
import { ACCEPT } from './rows/accept.ts'
import { COMPONENT_BENCHES } from './rows/components.ts'
import { EMBEDDED } from './rows/embedded.ts'
import { FLOW_BENCHES } from './rows/flow.ts'
import { GROWTH_BENCHES } from './rows/growth.ts'
import { OUTAGE_BENCHES } from './rows/outages.ts'
import { RESTART } from './rows/restart.ts'
import { SETTLE } from './rows/settle.ts'
import { LEAK } from './surveys/leak.ts'
import { MEMORY } from './surveys/memory.ts'
import { ORDINARY } from './surveys/ordinary.ts'
import { OVERLOAD } from './surveys/overload.ts'
import { FOOTPRINT, IDLE } from './surveys/surveys.ts'

const BENCHES: readonly Bench[] = [
  ...FLOW_BENCHES,
  ACCEPT,
  ...COMPONENT_BENCHES,
  EMBEDDED,
  SETTLE,
  ...OUTAGE_BENCHES,
  RESTART,
  ...GROWTH_BENCHES,
]

const SURVEYS: readonly Survey[] = [IDLE, FOOTPRINT, ORDINARY, LEAK, OVERLOAD, MEMORY]

const USAGE = `Usage: npm run bench -- [options]

Starts its own Kafka and PostgreSQL, measures the services and references alternately on these servers,
and prints the ratios: ${BENCHES.map(({ name }) => name).join(', ')}.
Then it measures the costs of the processes: ${SURVEYS.map(({ name }) => name).join(', ')}.

  --only NAME[,NAME]   run only these benchmarks and surveys
  --quick              run short rounds, and skip rows that take minutes; exit with 1 if a ratio misses its
                       mark by a factor of two in each of three rounds
  --rounds N           pairs of runs that count (3)
  --seconds N          length of each run (6)
  --minutes N          length of leak, which runs only if --only names it (30)
  --write              also write the tables to docs/performance.md
  --help               print this text
`

interface Options extends Pace {
  readonly benches: readonly Bench[]
  readonly surveys: readonly Survey[]
  readonly write: boolean
}

/** Returns undefined for --help. */
function optionsOf(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string', default: '' },
      quick: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      minutes: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  const { quick, write } = values
  const names = values.only.split(',').filter(Boolean)
  const known = [...BENCHES, ...SURVEYS].map(({ name }) => name)
  const unknown = names.filter((name) => !known.includes(name))
  if (unknown.length > 0) throw new Error(`no such benchmark: ${unknown.join(', ')}`)
  const benches = BENCHES.filter(({ name, isLong }) =>
    names.length > 0 ? names.includes(name) : !(quick && isLong),
  )
  const surveys = SURVEYS.filter(({ name, isLong, isQuick }) => {
    if (names.length > 0) return names.includes(name)
    return quick ? isQuick : !isLong
  })
  return {
    benches,
    surveys,
    quick,
    write,
    rounds: countOf('rounds', values.rounds ?? (quick ? '1' : '3')),
    seconds: countOf('seconds', values.seconds ?? (quick ? '2' : '6')),
    ...(values.minutes && { minutes: countOf('minutes', values.minutes) }),
  }
}

function countOf(name: string, text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new Error(`--${name} must be a whole number, not ${text}`)
  return Number(text)
}

interface Results {
  readonly outcomes: readonly Outcome[]
  readonly tables: readonly SurveyTable[]
}

async function run({ benches, surveys, ...pace }: Options): Promise<Results> {
  const startedMs = performance.now()
  const say = (line: string) => {
    const seconds = ((performance.now() - startedMs) / 1_000).toFixed(0).padStart(4)
    console.log(`${seconds} s  ${line}`)
  }
  const stack = await openBenchStack(say)
  const stop = () => void stack.close().finally(() => process.exit(130))
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, stop)
  const outcomes: Outcome[] = []
  const tables: SurveyTable[] = []
  try {
    for (const bench of benches) {
      outcomes.push(...(await alternate(bench, stack, pace, say)))
      // Reported after each benchmark, so that results survive the failure of a later one.
      report({ outcomes, tables })
    }
    for (const survey of surveys) {
      say(`surveying ${survey.name}`)
      tables.push(await survey.run(stack, pace))
      report({ outcomes, tables })
    }
  } finally {
    await stack.close()
  }
  return { outcomes, tables }
}

/** Writes the results as JSON for other programs, and a picture of each ratio. */
function report({ outcomes, tables }: Results): void {
  const folder = join(root, 'reports')
  mkdirSync(folder, { recursive: true })
  const write = (name: string, content: unknown) =>
    writeFileSync(join(folder, name), `${JSON.stringify(content, null, 2)}\n`)
  if (outcomes.length > 0) write('bench.json', outcomes)
  if (tables.length > 0) write('bench-surveys.json', tables)
  for (const outcome of outcomes) {
    const file = `bench-${outcome.name.replaceAll(' ', '-')}.svg`
    writeFileSync(join(folder, file), pictureOf(outcome))
  }
}

/** Writes the tables to docs/performance.md. */
function document({ outcomes, tables }: Results, { seconds }: Pace): void {
  const file = join(root, 'docs', 'performance.md')
  const [first] = cpus()
  const gigabytes = Math.round(totalmem() / 2 ** 30)
  const machine = `${cpus().length} cores (${first?.model.trim()}), ${gigabytes} GB, Node ${process.version}`
  const date = new Date().toISOString().slice(0, 10)
  const parts: string[] = []
  if (outcomes.length > 0) parts.push(sectionOf(outcomes, { date, machine, seconds }))
  for (const { title, head, rows } of tables) {
    parts.push(`${title}:\n\n${markdownTable([head, ...rows])}`)
  }
  writeFileSync(file, withSection(readFileSync(file, 'utf8'), 'bench', parts.join('\n\n')))
}

if (import.meta.main) {
  try {
    const options = optionsOf(process.argv.slice(2))
    if (options === undefined) console.log(USAGE)
    else {
      const results = await run(options)
      if (options.write) document(results, options)
      const { outcomes, tables } = results
      if (outcomes.length > 0) console.log(`\n${tableOf(outcomes)}\n\n${costLines(outcomes)}`)
      for (const { title, head, rows } of tables) {
        console.log(`\n${title}\n\n${inColumns([head, ...rows])}`)
      }
      const findings = tables.flatMap((table) => table.findings ?? [])
      for (const finding of findings) console.log(finding)
      if (options.quick && (outcomes.some(isFarShort) || findings.length > 0)) process.exitCode = 1
    }
  } catch (error) {
    console.error(`bench: ${inspect(error)}`)
    process.exitCode = 1
  }
  // A failed benchmark may have left work running, which must not keep the process alive.
  process.exit()
}
