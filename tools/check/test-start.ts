import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { until } from '../../platform/async/until.ts'
import { root } from '../repository-files.ts'

interface Cell {
  readonly name: string
  readonly node: string
  readonly npm: string
}

/** npm 11 does not run on Node.js 18. */
const CELLS: readonly Cell[] = ['18', '20', '22', '24'].flatMap((node) =>
  ['9', '10', '11']
    .filter((npm) => node !== '18' || npm !== '11')
    .map((npm) => ({ name: `node${node}-npm${npm}`, node, npm })),
)
const FULLY_TESTED = 'node20-npm10'

const USAGE = `Usage: npm run test:start -- [options]

For each supported combination (cell) of Node.js and npm, installs both, clones the committed tree and follows
the README: npm ci, npm start, an order, Ctrl-C; a second start, SIGTERM to npm; then tests. npm test runs in
${FULLY_TESTED} only, a few unit tests in the others. Linux only.

  --only CELL   run one cell, such as node20-npm10, with a few unit tests; may be repeated
  --full        run npm test in every cell
  --help        print this text
`

const LIMIT_MS = { npmCi: 300_000, ready: 60_000, stop: 10_000, tests: 1_800_000 }
const LAST_LINES = 40
/** The tests that start Node.js and npm themselves. */
const SHORT_TESTS = ['run', 'unit', 'tools/launch', 'platform/process/process', 'folder-lock']
/** The exit code of a shell whose command was killed by the signal. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const

interface Result {
  readonly cell: string
  readonly steps: Readonly<Record<string, string>>
  readonly failure?: string
}

/** The environment for the commands of one cell, with the Node.js and npm of the cell first on PATH. */
interface Shell {
  readonly folder: string
  readonly npm: string
  readonly environment: NodeJS.ProcessEnv
}

async function testCells(cells: readonly Cell[], full: boolean, all: boolean): Promise<Result[]> {
  const folder = mkdtempSync(join(tmpdir(), 'trifold-start-'))
  const results: Result[] = []
  const removeAll = () => {
    for (const group of groups) process.kill(-group, 'SIGKILL')
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      removeAll()
      process.exit(EXIT_CODES[signal])
    })
  }
  try {
    for (const cell of cells) {
      console.log(`\n${cell.name}`)
      const tests = full || (all && cell.name === FULLY_TESTED) ? ['test'] : SHORT_TESTS
      results.push(await testCell(cell, folder, tests))
    }
    return results
  } finally {
    removeAll()
  }
}

async function testCell(cell: Cell, folder: string, tests: readonly string[]): Promise<Result> {
  const steps: Record<string, string> = {}
  try {
    const binaries = await install(cell, folder)
    const clone = join(folder, cell.name)
    await promisify(execFile)('git', ['clone', '--quiet', root, clone])
    const shell = { folder: clone, environment: environmentWith(binaries), npm: cell.npm }
    const note = (step: string, text: string) => {
      steps[step] = text
      console.log(`  ${step}: ${text}`)
    }
    note('npm ci', await installDependencies(shell))
    note('first start', await startOrderStop(shell, 'Ctrl-C'))
    note('second start', await startOrderStop(shell, 'SIGTERM'))
    note(`npm ${tests.join(' ')}`, await seconds(() => npm(shell, tests, LIMIT_MS.tests)))
    rmSync(clone, { recursive: true, force: true })
    return { cell: cell.name, steps }
  } catch (error) {
    const failure = (error as Error).message
    console.log(`  FAILED: ${failure}`)
    return { cell: cell.name, steps, failure }
  }
}

/** Installs Node.js and npm from their npm packages. Returns a folder with links to both. */
async function install({ name, node, npm }: Cell, folder: string): Promise<string> {
  const packages = [`node-linux-${process.arch}@${node}`, `npm@${npm}`]
  const modules = join(folder, `${name}-tools`)
  mkdirSync(modules)
  writeFileSync(join(modules, 'package.json'), '{}')
  const args = ['install', '--no-audit', '--no-fund', '--loglevel=error', '--engine-strict=false']
  await promisify(execFile)('npm', [...args, ...packages], { cwd: modules, env: environmentWith() })
  const bin = join(modules, 'bin')
  mkdirSync(bin)
  const installed = join(modules, 'node_modules')
  symlinkSync(join(installed, `node-linux-${process.arch}`, 'bin', 'node'), join(bin, 'node'))
  symlinkSync(join(installed, 'npm', 'bin', 'npm-cli.js'), join(bin, 'npm'))
  return bin
}

/**
 * The environment without the variables of the npm that runs this script, because they would also configure
 * the cell's npm.
 */
function environmentWith(binaries?: string): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^npm_/i.test(name) || /^npm_config_(registry|cafile|cache)$/i.test(name),
  )
  const path = (process.env.PATH ?? '').split(delimiter)
  const own = path.filter((entry) => !entry.includes('node_modules'))
  return {
    ...Object.fromEntries(inherited),
    PATH: (binaries ? [binaries, ...own] : path).join(delimiter),
    PORT: '0',
  }
}

async function installDependencies(shell: Shell): Promise<string> {
  let output = ''
  const took = await seconds(async () => {
    output = await npm(shell, ['ci', '--no-audit', '--no-fund'], LIMIT_MS.npmCi)
  })
  assert.doesNotMatch(output, /warn/i, 'npm ci printed warnings')
  return took
}

/**
 * Starts the program, places an order and stops the program in the given way. Returns a sentence with the
 * time that the start took.
 */
async function startOrderStop(shell: Shell, way: 'Ctrl-C' | 'SIGTERM'): Promise<string> {
  const started = start(shell, ['start'])
  const { child, ended, output } = started
  try {
    let url = ''
    const isReady = async () => {
      url = /ready after .* at (http:\S+)/.exec(output())?.[1] ?? ''
      return url !== ''
    }
    const code = ended.then(({ code }) => code ?? 1)
    await until(isReady, { limitMs: LIMIT_MS.ready, ended: code })
    await placeOrder(url)
    // A terminal signals the whole process group; `kill` signals only npm, which npm 9 ignores.
    const signal = way === 'Ctrl-C' ? 'SIGINT' : 'SIGTERM'
    const toGroup = way === 'Ctrl-C' || shell.npm === '9'
    process.kill(toGroup ? -child.pid! : child.pid!, signal)
    await until(async () => !(await answers(url)), { limitMs: LIMIT_MS.stop })
    await until(async () => !groupIsAlive(child.pid!), { limitMs: LIMIT_MS.stop })
    const end = await ended
    // If npm runs the program in a shell, the signal also kills the shell and npm once the program has
    // exited.
    const exit = end.code ?? end.signal
    assert.ok(
      exit === 0 || exit === signal || exit === EXIT_CODES[signal],
      `npm exited with ${exit}`,
    )
    assert.doesNotMatch(output(), /"level":"(error|fatal)"/)
    const ready = /ready after ([\d.]+ s)/.exec(output())?.[1]
    return `ready after ${ready}, ${way} ends npm with ${exit}`
  } catch (error) {
    throw new Error(`npm start: ${(error as Error).message}\n${lastLines(output())}`)
  } finally {
    if (groupIsAlive(child.pid!)) process.kill(-child.pid!, 'SIGKILL')
  }
}

async function placeOrder(url: string): Promise<void> {
  const post = async (path: string, expected: number, body?: object) => {
    const response = await fetch(url + path, {
      method: 'POST',
      headers: {
        'x-interaction-style': 'http',
        ...(body && { 'content-type': 'application/json' }),
      },
      ...(body && { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    assert.equal(response.status, expected, `POST ${path}: ${text}`)
    return JSON.parse(text)
  }
  const account = await post('/billing/account/create', 200)
  await post(`/billing/account/${account}?amount=199`, 200)
  await post(`/orders?profileId=${account}`, 201, { productQuantity: 3 })
}

async function answers(url: string): Promise<boolean> {
  return fetch(`${url}/orders/health`).then(
    () => true,
    () => false,
  )
}

/** The process groups that are running. */
const groups = new Set<number>()

/** Starts npm as the leader of a new process group, so the id of the group is the id of the process. */
function start({ folder, environment }: Shell, args: readonly string[]) {
  const child: ChildProcess = spawn('npm', args, {
    cwd: folder,
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  child.once('spawn', () => groups.add(child.pid!))
  child.once('exit', () => groups.delete(child.pid!))
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  }
  const ended = once(child, 'close').then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as NodeJS.Signals | null,
  }))
  return { child, ended, output: () => output }
}

/** Runs npm and returns its output. Rejects unless npm exits with 0 within the limit. */
async function npm(shell: Shell, args: readonly string[], limitMs: number): Promise<string> {
  const { child, ended, output } = start(shell, args)
  const timer = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), limitMs)
  const { code, signal } = await ended
  clearTimeout(timer)
  if (code === 0) return output()
  throw new Error(`npm ${args.join(' ')}: ${code ?? signal}\n${lastLines(output())}`)
}

function groupIsAlive(pid: number): boolean {
  try {
    process.kill(-pid, 0)
    return true
  } catch {
    return false
  }
}

async function seconds(work: () => Promise<unknown>): Promise<string> {
  const startedMs = performance.now()
  await work()
  return `${((performance.now() - startedMs) / 1000).toFixed(0)} s`
}

const lastLines = (text: string) => text.trimEnd().split('\n').slice(-LAST_LINES).join('\n')

function table(results: readonly Result[]): string {
  return results
    .map(({ cell, steps, failure }) => {
      const done = Object.entries(steps).map(([step, text]) => `${step} ${text}`)
      return `${failure ? 'FAILED' : 'passed'}  ${cell.padEnd(13)} ${done.join('; ')}`
    })
    .join('\n')
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    full: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
const cells = CELLS.filter(({ name }) => values.only === undefined || values.only.includes(name))
if (values.help) console.log(USAGE)
else if (cells.length < (values.only?.length ?? 1)) {
  console.error(`The cells are ${CELLS.map(({ name }) => name).join(', ')}.\n\n${USAGE}`)
  process.exitCode = 2
} else {
  const results = await testCells(cells, values.full, values.only === undefined)
  console.log(`\n${table(results)}`)
  process.exitCode = results.some(({ failure }) => failure !== undefined) ? 1 : 0
}
