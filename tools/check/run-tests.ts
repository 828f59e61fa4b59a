import { spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { repositoryFiles, root } from '../repository-files.ts'

/** Words pick test files by their path; what begins with a dash goes to Node's own test runner. */
export interface TestWords {
  readonly words: readonly string[]
  readonly flags: readonly string[]
}

export function testWords(args: readonly string[]): TestWords {
  const isFlag = (arg: string) => arg.startsWith('-')
  return { words: args.filter((arg) => !isFlag(arg)), flags: args.filter(isFlag) }
}

/** The test files that are meant, by their paths from the root. */
export function testFiles(
  { words }: TestWords,
  isMeant: (path: string) => boolean = () => true,
): string[] {
  return repositoryFiles()
    .filter((path) => path.endsWith('.test.ts') && isMeant(path))
    .filter((path) => words.length === 0 || words.some((word) => path.includes(word)))
}

export const nothingChosen = ({ words }: TestWords) =>
  `No test file has ${words.map((word) => `"${word}"`).join(' or ')} in its path.`

/** Of Node, to run these files in the root folder. */
export function runnerArguments(
  files: readonly string[],
  concurrency: number,
  { flags }: TestWords,
): string[] {
  return [
    '--test',
    '--test-reporter=spec',
    `--test-concurrency=${concurrency}`,
    // Only ends a test that hangs: the slowest take a minute and a half on a machine with other work.
    '--test-timeout=300000',
    ...flags,
    ...files,
  ]
}

/** Without it a runner that is started by a test would report to that test's runner. */
export const runnerEnvironment = { NODE_TEST_CONTEXT: undefined }

/**
 * Runs every `*.test.ts` of the repository and exits as the runner does: `npm run unit -- money relay`,
 * `npm run unit -- money --test-name-pattern=refuses`. What needs the real stack is left to
 * `test-stack.ts`.
 */
function main(args: readonly string[]): void {
  const chosen = testWords(args)
  const files = testFiles(chosen, (path) => !path.startsWith('tests/stack/'))
  if (files.length === 0) {
    console.error(nothingChosen(chosen))
    process.exit(1)
  }
  // Two at least, because tests wait more than they compute; eight at most, because each has a database.
  const concurrency = Math.min(8, Math.max(2, availableParallelism()))
  const runner = spawn(process.execPath, runnerArguments(files, concurrency, chosen), {
    cwd: root,
    env: { ...process.env, ...runnerEnvironment },
    stdio: 'inherit',
  })
  // The runner stops its test files on SIGTERM. Ctrl-C arrives several times: from the terminal, npm and launcher.
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => runner.kill('SIGTERM'))
  runner.once('exit', (code) => {
    process.exitCode = code ?? 1
  })
}

if (import.meta.main) main(process.argv.slice(2))
