import { setFlagsFromString } from 'node:v8'
import type { Log } from '../async/runtime.ts'
import { SchemaTooNewError } from '../database/migrate.ts'
import { redact, registerSecrets } from '../telemetry/redact.ts'
import { createLog } from '../telemetry/telemetry.ts'
import { ConfigError, type Environment } from './config.ts'

/**
 * The only place that reads the process's environment. A `.env` file in the working folder adds to it and overrides
 * nothing. Throws an Error if there is such a file and it cannot be read.
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
  /** How long close() may take before the process ends anyway, in milliseconds. */
  readonly deadlineMs?: number
  readonly log?: Log
}

/** How long a program may take to close unless told otherwise. Whoever stops it waits longer. */
export const CLOSE_DEADLINE_MS = 20_000

/**
 * How V8 collects garbage that has become old. It may gather to twice the size of what lives: left to itself V8
 * has a process that settles a few hundred orders a second collect 10 MB of it every three seconds. And what
 * lives, some tens of megabytes, is marked in one pause of 30 to 50 ms, by all threads together. A thread that marks
 * beside the event loop takes, where processors are few, one of them from everybody for 50 ms at a stretch.
 * Marking in steps between its tasks takes seconds, and all that is promoted meanwhile stays, with what hangs on
 * it: six times as much becomes old, and each collection of young garbage takes twice as long.
 */
const COLLECTION = ['--heap-growing-percent=200', '--no-incremental-marking']
/**
 * Optimizing PGlite's largest functions takes hundreds of megabytes for a moment. With one at a time, less of that
 * is left behind as fragments.
 */
const COMPILATION = ['--wasm-num-compilation-tasks=1']

/** One Ctrl-C may arrive twice: from the terminal and, passed on, from npm. */
const SAME_SIGNAL_MS = 300

const EXIT_CODES = { SIGTERM: 143, SIGINT: 130, SIGHUP: 129 } as const

/** How long the last log lines may take to reach their reader. */
const FLUSH_MS = 500

/**
 * Runs a program: starts it, and closes it on SIGTERM, SIGINT, SIGHUP or an uncaught fault. Exit codes:
 * 0 closed on a signal; 1 a fault, a failed start, or a close past its deadline; 2 a wrong
 * configuration, or a database that belongs to a newer version; 129, 130 or 143 a second signal. Resolves
 * when the program has started.
 */
export async function runProcess(
  name: string,
  start: (environment: Environment) => Promise<{ close(): Promise<void> }>,
  { deadlineMs = CLOSE_DEADLINE_MS, log = createLog('info', name) }: ProcessOptions = {},
): Promise<void> {
  let stopping = false
  let last = { signal: '', at: 0 }

  function stop(exitCode: number): void {
    stopping = true
    setTimeout(() => {
      log.error({ deadlineMs }, `${name} did not close before its deadline`)
      exit(1)
    }, deadlineMs)
    // A signal during the start waits for it: only what has started can be closed.
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
    const repeated = last.signal === signal && performance.now() < last.at + SAME_SIGNAL_MS
    if (repeated) return
    last = { signal, at: performance.now() }
    if (stopping) process.exit(EXIT_CODES[signal])
    log.info({ signal }, `${name} is closing`)
    stop(0)
  }

  function onFault(err: unknown): void {
    if (err instanceof SchemaTooNewError) {
      log.error({}, err.message)
      if (!stopping) stop(2)
      return
    }
    log.error({ err }, `${name} met a fault that nobody caught`)
    if (!stopping) stop(1)
  }

  for (const flag of [...COLLECTION, ...COMPILATION]) if (isFree(flag)) setFlagsFromString(flag)
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, onSignal)
  // Output that cannot be written is lost, which is no reason to stop.
  process.stdout.on('error', () => undefined)
  process.stderr.on('error', () => undefined)
  process.on('uncaughtException', onFault)
  process.on('unhandledRejection', onFault)

  const started = Promise.resolve().then(() => {
    const variables = environment()
    registerSecrets(variables)
    return start(variables)
  })
  await started.catch((error) => failToStart(name, error, log))
}

/** Ends the process when its output has been read, or nobody reads it. */
function exit(code: number): void {
  const end = () => process.exit(code)
  setTimeout(end, FLUSH_MS)
  process.stdout.write('', end)
}

/** Whether the command line leaves this V8 flag to us. */
function isFree(flag: string): boolean {
  return !process.execArgv.some((given) => nameOf(given) === nameOf(flag))
}

const nameOf = (flag: string) => flag.split('=', 1)[0]!.replace('--no-', '--')

/** A fault that its reader can fix (a port or a folder in use) is one sentence; others have their stack. */
function failToStart(name: string, error: unknown, log: Log): never {
  const isForOperator = error instanceof ConfigError || error instanceof SchemaTooNewError
  if (isForOperator || isRefusal(error)) {
    process.stderr.write(`${name}: ${redact(error.message)}\n`)
    process.exit(isForOperator ? 2 : 1)
  }
  log.error({ err: error }, `${name} failed to start`)
  process.exit(1)
}

function isRefusal(error: unknown): error is Error {
  return error instanceof Error && (error.name === 'Error' || 'syscall' in error)
}
