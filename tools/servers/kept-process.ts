import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'

/** A server that was started as a child process and ends with us, however we end. */
export interface KeptProcess {
  /** Of the server itself. */
  readonly pid: number
  /** Resolves with the exit code when the server has ended, for whatever reason. */
  readonly ended: Promise<number>
  /** SIGTERM or `gentle`, then SIGKILL after so many milliseconds; resolves when it has ended. */
  stop(limitMs?: number, gentle?: NodeJS.Signals): Promise<void>
}

export interface KeptProcessOptions {
  readonly command: string
  readonly args: readonly string[]
  /** Takes what the server prints; without it that goes where our own words go. */
  readonly logFile?: string
  /** Takes each line that it prints, in place of either. */
  readonly onLine?: (line: string) => void
  readonly folder?: string
  readonly env?: Readonly<Record<string, string | undefined>>
  /** Who it runs as, where that is not us. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined
}

/**
 * A process that is killed with SIGKILL cannot stop its children. So a shell stands between: it
 * starts the server and holds the end of a pipe whose other end is ours alone. When we die, by
 * whatever cause, the kernel closes our end, the shell's guard reads the end of the pipe and kills
 * the server with the workers of its process group. The server has a session of its own, so that
 * Ctrl-C reaches it only through us.
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
      // A process that is stopped does not see a SIGTERM until it goes on.
      signal(shell, pid, 'SIGCONT')
      const timer = setTimeout(() => signal(shell, pid, 'SIGKILL'), limitMs)
      await ended
      clearTimeout(timer)
    },
  }
}

/** What a server said last; nothing where it has no log yet. */
export function lastLines(logFile: string, count: number): string {
  if (!existsSync(logFile)) return ''
  return readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-count).join('\n')
}

const STOP_LIMIT_MS = 15_000

/**
 * $0 is the command, $@ its arguments. Descriptor 4 is our pipe, because a shell gives its background
 * processes /dev/null as standard input; the server gets neither of the two pipes. $$ is also the
 * number of the process group, because the shell was started with one of its own. When the server has
 * ended, what is left of the group (the guard, a server's workers) is told to end, the shell is not.
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
  // By then all that it printed has come, too.
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

/** While the shell lives it has not collected the server, so the number is nobody else's. */
function signal(shell: ChildProcess, pid: number, name: NodeJS.Signals): void {
  if (shell.exitCode !== null || shell.signalCode !== null) return
  try {
    process.kill(pid, name)
  } catch {
    // It has just ended.
  }
}
