import { setFlagsFromString } from 'node:v8'
import type { Log } from '../async/runtime.ts'
import { SchemaTooNewError } from '../database/migrate.ts'
import { redact, registerSecrets } from '../telemetry/redact.ts'
import { createLog } from '../telemetry/telemetry.ts'
import { ConfigError, type Environment } from './config.ts'

/**
 * The environment of the process. It is read only here. A `.env` file in the working folder can add
 * variables, but not override any. Throws an Error if the file exists but cannot be read.
 */
export function environment(): Environment {
  try {
    process.loadEnvFile()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new Error(`.env cannot be read: ${(error as Error).message}`, { cause: error })
    }
  }
  return process.env
}

export interface ProcessOptions {
  /** How long `close` may take, in milliseconds. After that, the process ends with code 1. */
  readonly deadlineMs?: number
  readonly log?: Log
}

/** How long a program may take to close by default. Code that stops a program has to wait longer than this. */
export const CLOSE_DEADLINE_MS = 20_000

/**
 * V8's flags for collecting the old generation.
 *
 * - The old generation may grow to twice the size of its live objects. By default, in a process that handles
 *   a few hundred orders a second, V8 collects 10 MB of old garbage every three seconds.
 * - The live objects, some tens of megabytes, are marked in one pause of 30 to 50 ms, by all threads
 *   together. Concurrent marking would occupy a whole core for 50 ms at a time, on machines that have few
 *   cores. Incremental marking takes seconds, and objects that are promoted during that time survive with
 *   everything that they refer to: six times as much becomes old, and each collection of the young generation
 *   takes twice as long.
 */
const COLLECTION = ['--heap-growing-percent=200', '--no-incremental-marking']
/**
 * Optimizing one of PGlite's largest functions briefly takes hundreds of megabytes. Running one optimization
 * at a time leaves less fragmented memory behind.
 */
const COMPILATION = ['--wasm-num-compilation-tasks=1']

/**
 * A repeated signal within this time is ignored, because one Ctrl-C can arrive twice: from the terminal, and
 * from npm, which passes it on.
 */
const SAME_SIGNAL_MS = 300

const EXIT_CODES = { SIGTERM: 143, SIGINT: 130, SIGHUP: 129 } as const

/** How long writing the last log lines may take. */
const FLUSH_MS = 500

/**
 * Starts a program, and closes it on SIGTERM, SIGINT, SIGHUP or an uncaught error. Resolves when the program has
 * started. Exit codes:
 *
 * - 0: closed after a signal
 * - 1: an uncaught error, a failed start, or a close that exceeded its deadline
 * - 2: an invalid configuration, or a database that belongs to a newer version
 * - 129, 130 or 143: a second signal
 */
export async function runProcess(
  name: string,
  start: (environment: Environment) => Promise<{ close(): Promise<void> }>,
  { deadlineMs = CLOSE_DEADLINE_MS, log = createLog('info', name) }: ProcessOptions = {},
): Promise<void> {
  let stopping = false
  let lastSignal = { signal: '', at: 0 }

  function stop(exitCode: number): void {
    stopping = true
    setTimeout(() => {
      log.error({ deadlineMs }, `${name} did not close before its deadline`)
      exit(1)
    }, deadlineMs)
    // A signal that arrives during the start takes effect after the start, because only a started program can
    // be closed.
    started
      .then((program) => program.close())
      .then(
        () => exit(exitCode),
        (err) => {
          log.error({ err }, `${name} failed to close`)
          exit(1)
        },
      )
  }

  function onSignal(signal: keyof typeof EXIT_CODES): void {
    const nowMs = performance.now()
    if (lastSignal.signal === signal && nowMs < lastSignal.at + SAME_SIGNAL_MS) return
    lastSignal = { signal, at: nowMs }
    if (stopping) process.exit(EXIT_CODES[signal])
    log.info({ signal }, `${name} is closing`)
    stop(0)
  }

  function onUncaught(err: unknown): void {
    if (err instanceof SchemaTooNewError) {
      log.error({}, err.message)
      if (!stopping) stop(2)
      return
    }
    log.error({ err }, `${name} is closing after an uncaught error`)
    if (!stopping) stop(1)
  }

  for (const flag of [...COLLECTION, ...COMPILATION]) if (isUnset(flag)) setFlagsFromString(flag)
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, onSignal)
  // Output that cannot be written is lost; the process continues.
  process.stdout.on('error', () => undefined)
  process.stderr.on('error', () => undefined)
  process.on('uncaughtException', onUncaught)
  process.on('unhandledRejection', onUncaught)

  const started = Promise.resolve().then(() => {
    const variables = environment()
    registerSecrets(variables)
    return start(variables)
  })
  await started.catch((error) => failToStart(name, error, log))
}

/** Ends the process once its output has been written, or after FLUSH_MS if nothing reads the output. */
function exit(code: number): void {
  const end = () => process.exit(code)
  setTimeout(end, FLUSH_MS)
  process.stdout.write('', end)
}

/** Whether the command line leaves this V8 flag unset. */
function isUnset(flag: string): boolean {
  return !process.execArgv.some((given) => nameOf(given) === nameOf(flag))
}

const nameOf = (flag: string) => flag.split('=', 1)[0]!.replace('--no-', '--')

/**
 * Reports a failed start and ends the process. An error that the operator can fix, such as a port in use, is
 * reported in one sentence; any other error is reported with its stack.
 */
function failToStart(name: string, error: unknown, log: Log): never {
  const isForOperator = error instanceof ConfigError || error instanceof SchemaTooNewError
  if (isForOperator || isPlainError(error)) {
    process.stderr.write(`${name}: ${redact(error.message)}\n`)
    process.exit(isForOperator ? 2 : 1)
  }
  log.error({ err: error }, `${name} failed to start`)
  process.exit(1)
}

/**
 * Errors thrown on purpose are plain Errors, and system errors have a `syscall`. An error of any other class
 * indicates a bug.
 */
function isPlainError(error: unknown): error is Error {
  return error instanceof Error && (error.name === 'Error' || 'syscall' in error)
}
