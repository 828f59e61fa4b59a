import { spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { repositoryFiles, root } from '../repository-files.ts'

/** Words select test files by their path; arguments that begin with a dash are passed to Node's test runner. */
export interface TestWords {
  readonly words: readonly string[]
  readonly flags: readonly string[]
}

export function testWords(args: readonly string[]): TestWords {
  const isFlag = (arg: string) => arg.startsWith('-')
  return { words: args.filter((arg) => !isFlag(arg)), flags: args.filter(isFlag) }
}

/** The paths of the selected test files, relative to the root. */
export function testFiles(
  { words }: TestWords,
  isIncluded: (path: string) => boolean = () => true,
): string[] {
  return repositoryFiles()
    .filter((path) => path.endsWith('.test.ts') && isIncluded(path))
    .filter((path) => words.length === 0 || words.some((word) => path.includes(word)))
}

export const nothingChosen = ({ words }: TestWords) =>
  `No test file has ${words.map((word) => `"${word}"`).join(' or ')} in its path.`

/** The arguments with which Node runs these files from the root folder. */
export function runnerArguments(
  files: readonly string[],
  concurrency: number,
  { flags }: TestWords,
): string[] {
  return [
    '--test',
    '--test-reporter=spec',
    `--test-concurrency=${concurrency}`,
    // The limit is only for tests that hang: the slowest tests take a minute and a half on a busy machine.
    '--test-timeout=300000',
    ...flags,
    ...files,
  ]
}

/**
 * Unsets NODE_TEST_CONTEXT, because a runner started by a test would otherwise report to that test's runner.
 */
export const runnerEnvironment = { NODE_TEST_CONTEXT: undefined }

/**
 * Runs the `*.test.ts` files of the repository and exits with the runner's code: `npm run unit -- money relay`,
 * `npm run unit -- money --test-name-pattern=rejects`. Tests that need the real stack run in `test-stack.ts`.
 */
function main(args: readonly string[]): void {
  const chosen = testWords(args)
  const files = testFiles(chosen, (path) => !path.startsWith('tests/stack/'))
  if (files.length === 0) {
    console.error(nothingChosen(chosen))
    process.exit(1)
  }
  // At least two files run at a time, because tests wait more than they compute; at most eight, because each
  // has its own database.
  const concurrency = Math.min(8, Math.max(2, availableParallelism()))
  const runner = spawn(process.execPath, runnerArguments(files, concurrency, chosen), {
    cwd: root,
    env: { ...process.env, ...runnerEnvironment },
    stdio: 'inherit',
  })
  // The runner stops its test files on SIGTERM. SIGINT is forwarded as SIGTERM, because Ctrl-C arrives more
  // than once: from the terminal, npm and the launcher.
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => runner.kill('SIGTERM'))
  runner.once('exit', (code) => {
    process.exitCode = code ?? 1
  })
}

if (import.meta.main) main(process.argv.slice(2))
