import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'

/** A server that runs as a child process and ends when this process ends, however this process ends. */
export interface KeptProcess {
  /** The process id of the server itself, rather than of the shell that watches it. */
  readonly pid: number
  /** Resolves with the exit code when the server has ended for any reason. */
  readonly ended: Promise<number>
  /**
   * Sends the signal `gentle` (SIGTERM by default), and SIGKILL after `limitMs`. Resolves when the server has
   * ended.
   */
  stop(limitMs?: number, gentle?: NodeJS.Signals): Promise<void>
}

export interface KeptProcessOptions {
  readonly command: string
  readonly args: readonly string[]
  /** The file for the server's output. Without a file, the server writes to the output of this process. */
  readonly logFile?: string
  /** Called with each line of output, instead of writing it to the log file. */
  readonly onLine?: (line: string) => void
  readonly folder?: string
  readonly env?: Readonly<Record<string, string | undefined>>
  /** The user that runs the server, if it is not the user of this process. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined
}

/**
 * A process that is killed by SIGKILL cannot stop its children. A shell therefore starts the server, and a
 * guard in the shell reads from a pipe that only this process can write to. When this process dies for any
 * reason, the kernel closes the pipe, and the guard kills the server with its process group. The server has a
 * separate session, so that Ctrl-C does not reach it directly.
 */
export async function startKept(options: KeptProcessOptions): Promise<KeptProcess> {
  const log = options.logFile === undefined ? undefined : openSync(options.logFile, 'a')
  const output = options.onLine ? 'pipe' : (log ?? 'inherit')
  const shell = spawn('/bin/sh', ['-c', KEEPER, options.command, ...options.args], {
    cwd: options.folder,
    env: { ...process.env, ...options.env },
    stdio: ['pipe', output, output, 'pipe'],
    detached: true,
    ...options.user,
  })
  if (log !== undefined) closeSync(log)
  shell.stdin?.on('error', () => undefined)
  for (const input of [shell.stdout, shell.stderr]) {
    if (input && options.onLine) createInterface({ input }).on('line', options.onLine)
  }
  const ended = endOf(shell)
  const pid = await readPid(shell)
  return {
    pid,
    ended,
    async stop(limitMs = STOP_LIMIT_MS, gentle = 'SIGTERM') {
      signal(shell, pid, gentle)
      // A frozen process does not receive SIGTERM until it continues.
      signal(shell, pid, 'SIGCONT')
      const timer = setTimeout(() => signal(shell, pid, 'SIGKILL'), limitMs)
      await ended
      clearTimeout(timer)
    },
  }
}

/** The last lines of a server's log; empty if there is no log yet. */
export function lastLines(logFile: string, count: number): string {
  if (!existsSync(logFile)) return ''
  return readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-count).join('\n')
}

const STOP_LIMIT_MS = 15_000

/**
 * $0 is the command, and $@ are its arguments. The pipe is moved to descriptor 4, because a shell gives its
 * background processes /dev/null as standard input; the server gets neither of the two pipes. $$ is also the
 * id of the process group, because the shell was started as a group leader. When the server has ended, the
 * rest of the group (the guard and workers of the server) gets SIGTERM, which the shell ignores.
 */
const KEEPER = `
exec 4<&0
"$0" "$@" </dev/null 3>&- 4<&- &
server=$!
echo $server >&3
exec 3>&-
{ read -r line; kill -KILL -$$; } <&4 >/dev/null 2>&1 &
exec 4<&-
wait $server
code=$?
trap '' TERM
kill -TERM -$$
exit $code
`

async function endOf(shell: ChildProcess): Promise<number> {
  // Unlike 'exit', 'close' is emitted after all output has been read.
  const [code] = (await once(shell, 'close')) as [number | null]
  return code ?? 1
}

async function readPid(shell: ChildProcess): Promise<number> {
  let text = ''
  for await (const chunk of shell.stdio[3] as Readable) text += chunk
  const pid = Number(text)
  if (!Number.isInteger(pid) || pid <= 0) throw new Error('the server could not be started')
  return pid
}

/**
 * Sends a signal to the server. The shell waits for the server, so while the shell runs, the process id
 * cannot belong to another process.
 */
function signal(shell: ChildProcess, pid: number, name: NodeJS.Signals): void {
  if (shell.exitCode !== null || shell.signalCode !== null) return
  try {
    process.kill(pid, name)
  } catch {
    // The server has just ended, so there is nothing to signal.
  }
}
