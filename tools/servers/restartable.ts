import { spawnSync } from 'node:child_process'
import type { KeptProcess } from './kept-process.ts'

/** A server that can be taken away in each way that servers go away, and brought back. */
export interface Restartable {
  /** Of the process that runs, or ran last. */
  readonly pid: number
  /** Resolves with the exit code of that process when it has ended, for whatever reason. */
  readonly ended: Promise<number>
  /** Lets it end in its own time; resolves when it has. */
  stop(): Promise<void>
  /** SIGKILL to it and all of its children, as when the machine fails. */
  kill(): Promise<void>
  /** SIGSTOP to all of them: connections stay open and nobody answers. */
  freeze(): Promise<void>
  thaw(): Promise<void>
  /** Starts it again at the same address and with the same data; resolves when it answers. */
  start(): Promise<void>
}

/** To a server and all that descend from it. Who has ended already is passed over. */
export type SignalAll = (server: KeptProcess, name: NodeJS.Signals) => void | Promise<void>

/**
 * `begin` starts the server and resolves when it answers; `end` lets it end. `signalAll` is another
 * for a server that is not a process of this machine.
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
      // What is frozen cannot end.
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
  // A parent that is stopped has no more children than those that are then found.
  if (name === 'SIGSTOP') send(name, [pid])
  send(name, familyOf(pid))
}

function send(name: NodeJS.Signals, pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, name)
    } catch {
      // It has just ended.
    }
  }
}

/** A process and all that descend from it. PostgreSQL's have sessions, and so groups, of their own. */
function familyOf(pid: number): number[] {
  const { stdout } = spawnSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
  const rows = stdout.split('\n').map((row) => row.trim().split(/\s+/).map(Number))
  const family = [pid]
  // It grows while it is gone through.
  for (const parent of family) {
    for (const [child = 0, of] of rows) if (of === parent) family.push(child)
  }
  return family
}
