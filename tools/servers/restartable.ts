import { spawnSync } from 'node:child_process'
import type { KeptProcess } from './kept-process.ts'

/** A server that tests can stop, kill, freeze, and start again. */
export interface Restartable {
  /** The process id of the server while it runs, and otherwise of its last run. */
  readonly pid: number
  /** Resolves with the exit code of that process when the process has ended for any reason. */
  readonly ended: Promise<number>
  /** Shuts down the server gracefully. Resolves when the server has ended. */
  stop(): Promise<void>
  /** Sends SIGKILL to the server and all its descendants, as if the machine had failed. */
  kill(): Promise<void>
  /** Sends SIGSTOP to the server and all its descendants. Connections stay open and get no response. */
  freeze(): Promise<void>
  thaw(): Promise<void>
  /** Starts the server again at the same address with the same data. Resolves when the server responds. */
  start(): Promise<void>
}

/** Sends a signal to a server and all its descendants, ignoring processes that have ended. */
export type SignalAll = (server: KeptProcess, name: NodeJS.Signals) => void | Promise<void>

/**
 * Makes a server restartable. `begin` starts the server and resolves when the server responds; `end` shuts it
 * down. A server in a container needs its own `signalAll`.
 */
export async function restartable(
  begin: () => Promise<KeptProcess>,
  end: (server: KeptProcess) => Promise<void> = (server) => server.stop(),
  signalAll: SignalAll = signalFamily,
): Promise<Restartable> {
  let server = await begin()
  return {
    get pid() {
      return server.pid
    },
    get ended() {
      return server.ended
    },
    async stop() {
      // A frozen server could not shut down, so it is thawed first.
      await signalAll(server, 'SIGCONT')
      await end(server)
    },
    async kill() {
      await signalAll(server, 'SIGKILL')
      await server.ended
    },
    async freeze() {
      await signalAll(server, 'SIGSTOP')
    },
    async thaw() {
      await signalAll(server, 'SIGCONT')
    },
    async start() {
      server = await begin()
    },
  }
}

function signalFamily({ pid }: KeptProcess, name: NodeJS.Signals): void {
  // Stopping the parent first keeps it from starting further children.
  if (name === 'SIGSTOP') send(name, [pid])
  send(name, familyOf(pid))
}

function send(name: NodeJS.Signals, pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, name)
    } catch {
      // The process has just ended, so there is nothing to signal.
    }
  }
}

/**
 * A process and all its descendants. Signaling the process group is not enough, because PostgreSQL's children
 * have their own sessions.
 */
function familyOf(pid: number): number[] {
  const { stdout } = spawnSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
  const rows = stdout.split('\n').map((row) => row.trim().split(/\s+/).map(Number))
  const family = [pid]
  // The array grows during the iteration, so that descendants at any depth are found.
  for (const parent of family) {
    for (const [child = 0, of] of rows) if (of === parent) family.push(child)
  }
  return family
}
