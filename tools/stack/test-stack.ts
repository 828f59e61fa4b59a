import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, normalize } from 'node:path'
import {
  nothingChosen,
  runnerArguments,
  runnerEnvironment,
  type TestWords,
  testFiles,
  testWords,
} from '../check/run-tests.ts'
import { root } from '../repository-files.ts'
import { startKafka } from '../servers/kafka.ts'
import { startKept } from '../servers/kept-process.ts'
import { freePorts } from '../servers/ports.ts'
import { databaseUrl, makeDatabases, startPostgres } from '../servers/postgres.ts'

interface Suite {
  readonly name: string
  readonly files: (path: string) => boolean
  /** How many test files run at a time. */
  readonly concurrency: number
  /** The environment variables of the suite's tests. */
  readonly environment: Readonly<Record<string, string>>
  /** Whether the suite needs Kafka and PostgreSQL. If so, variables in its environment name them. */
  readonly servers: boolean
}

/** The suites run one after the other. A suite without a chosen file is skipped. */
const SUITES: readonly Suite[] = [
  {
    name: 'components and conformance',
    files: (path) => !/^(tests|instruments)\//.test(path) && usesServers(path),
    concurrency: 3,
    environment: {},
    servers: true,
  },
  {
    name: 'end to end and acceptance, each file on a stack of its own',
    files: (path) => /^tests\/(e2e|acceptance)\//.test(path),
    concurrency: 1,
    environment: { TEST_STACK: 'true' },
    servers: false,
  },
  {
    name: 'the stack itself: outages, starts, foreign programs',
    files: (path) => path.startsWith('tests/stack/'),
    concurrency: 1,
    environment: {},
    servers: false,
  },
]

const KAFKA = 'TEST_KAFKA_BROKERS'
const POSTGRES = 'TEST_DATABASE_URL'
const POSTGRES_PORT = 25_440
/** A separate database for the tests, because the role has full rights only in databases that it created. */
const DATABASE = 'test'
/**
 * Enough for all test files that run at the same time, and for the connections that create their databases.
 */
const MAX_CONNECTIONS = 200
const EXIT_INTERRUPTED = 130

/**
 * Runs the suites on Apache Kafka and PostgreSQL: on servers that the environment names, or on servers
 * started here. However this process ends, these servers and the tests end with it. Returns the exit code,
 * which is 0 if all tests passed.
 */
async function testStack(chosen: TestWords, stopped: AbortSignal): Promise<number> {
  const selected = SUITES.map((suite) => ({ suite, files: testFiles(chosen, suite.files) })).filter(
    ({ files }) => files.length > 0,
  )
  if (selected.length === 0) throw new Error(nothingChosen(chosen))
  const results: string[] = []
  let exitCode = 0
  for (const { suite, files } of selected) {
    const startedMs = performance.now()
    const code = await runSuite(suite, files, chosen, stopped)
    if (stopped.aborted) return EXIT_INTERRUPTED
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(0)
    results.push(`${code === 0 ? 'passed' : 'FAILED'}  ${suite.name} (${seconds} s)`)
    if (code !== 0) exitCode = 1
  }
  console.log(`\n${results.join('\n')}`)
  return exitCode
}

async function runSuite(
  { name, environment, concurrency, servers }: Suite,
  files: readonly string[],
  chosen: TestWords,
  stopped: AbortSignal,
): Promise<number> {
  console.log(`\n${name}: ${files.length} files\n`)
  const started = servers ? await startServers(stopped) : { environment: {}, close: async () => {} }
  try {
    stopped.throwIfAborted()
    const runner = await startKept({
      command: process.execPath,
      args: runnerArguments(files, concurrency, chosen),
      folder: root,
      env: { ...runnerEnvironment, ...environment, ...started.environment },
    })
    const stop = () => void runner.stop()
    stopped.addEventListener('abort', stop)
    const code = await runner.ended
    stopped.removeEventListener('abort', stop)
    return code
  } finally {
    await started.close()
  }
}

/** Starts the servers that the environment does not name, in a temporary folder. */
async function startServers(stopped: AbortSignal) {
  const folder = mkdtempSync(join(tmpdir(), 'trifold-test-'))
  // PostgreSQL may run as another user, and that user must be able to enter the folder.
  chmodSync(folder, 0o755)
  const closers: (() => Promise<void>)[] = []
  const environment: Record<string, string> = {}
  async function close(): Promise<void> {
    for (const closer of closers.reverse()) await closer()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    const say = (line: string) => console.log(line)
    if (!process.env[POSTGRES]) {
      const postgres = await startPostgres({
        folder: join(folder, 'postgres'),
        port: await freePorts(POSTGRES_PORT, 1),
        maxConnections: MAX_CONNECTIONS,
        logFile: join(folder, 'postgres.log'),
      })
      closers.push(postgres.close)
      await makeDatabases(postgres.url, [DATABASE])
      environment[POSTGRES] = databaseUrl(postgres.url, DATABASE)
    }
    stopped.throwIfAborted()
    if (!process.env[KAFKA]) {
      const kafka = await startKafka({ folder: join(folder, 'kafka'), say })
      closers.push(kafka.close)
      environment[KAFKA] = kafka.brokers
    }
    return { environment, close }
  } catch (error) {
    await close()
    if (stopped.aborted) throw error
    const hint = `To use other servers, set ${KAFKA} and ${POSTGRES}.`
    throw new Error(`${(error as Error).message} ${hint}`, { cause: error })
  }
}

/** Whether a test file, or a file in tests/ that it imports, mentions the variables that name the servers. */
function usesServers(path: string, seen = new Set<string>()): boolean {
  if (seen.has(path)) return false
  seen.add(path)
  const text = readFileSync(join(root, path), 'utf8')
  if (text.includes(KAFKA) || text.includes(POSTGRES)) return true
  const imports = [...text.matchAll(/ from '(\.[^']+)'/g)]
  return imports
    .map(([, imported]) => normalize(join(dirname(path), imported as string)))
    .some((imported) => imported.startsWith('tests/') && usesServers(imported, seen))
}

if (import.meta.main) {
  const stopped = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => stopped.abort(new Error(`interrupted by ${name}`)))
  }
  try {
    process.exitCode = await testStack(testWords(process.argv.slice(2)), stopped.signal)
  } catch (error) {
    console.error(`test:stack: ${(error as Error).message}`)
    process.exitCode = stopped.signal.aborted ? EXIT_INTERRUPTED : 1
  }
}
