import { spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { repositoryFiles, root } from './repository-files.ts'

/**
 * Runs every `*.test.ts` of the repository with Node's own test runner and exits as it does.
 * Words pick files by their path (`npm run unit -- money relay`); what begins with a dash goes to
 * the runner (`npm run unit -- money --test-name-pattern=refuses`).
 */
const args = process.argv.slice(2)
const words = args.filter((arg) => !arg.startsWith('-'))
const files = repositoryFiles()
  .filter((path) => path.endsWith('.test.ts'))
  .filter((path) => words.length === 0 || words.some((word) => path.includes(word)))

if (files.length === 0) {
  console.error(`No test file has ${words.map((word) => `"${word}"`).join(' or ')} in its path.`)
  process.exit(1)
}

// Two at least, because tests wait more than they compute; eight at most, because each has a database.
const concurrency = Math.min(8, Math.max(2, availableParallelism()))
const { NODE_TEST_CONTEXT: _, ...env } = process.env
const runner = spawn(
  process.execPath,
  [
    '--test',
    '--test-reporter=spec',
    `--test-concurrency=${concurrency}`,
    '--test-timeout=120000',
    ...args.filter((arg) => arg.startsWith('-')),
    ...files,
  ],
  { cwd: root, env, stdio: 'inherit' },
)
// The terminal tells the whole process group; whoever ends only this process means the runner too.
process.once('SIGTERM', () => runner.kill())
process.once('SIGINT', () => {})
runner.once('exit', (code) => {
  process.exitCode = code ?? 1
})
