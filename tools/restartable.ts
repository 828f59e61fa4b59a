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

/** `begin` starts the server and resolves when it answers; `end` lets it end. */
export async function restartable(
  begin: () => Promise<KeptProcess>,
  end: (server: KeptProcess) => Promise<void> = (server) => server.stop(),
): Promise<Restartable> {
  let server = await begin()
  const send = (name: NodeJS.Signals, pids: readonly number[]) => {
    for (const pid of pids) {
      try {
        process.kill(pid, name)
      } catch {
        // It has just ended.
      }
    }
  }
  return {
    get pid() {
      return server.pid
    },
    get ended() {
      return server.ended
    },
    async stop() {
      // What is frozen cannot end.
      send('SIGCONT', familyOf(server.pid))
      await end(server)
    },
    async kill() {
      send('SIGKILL', familyOf(server.pid))
      await server.ended
    },
    async freeze() {
      // The parent first, so that it has no more children; then those that it has.
      send('SIGSTOP', [server.pid])
      send('SIGSTOP', familyOf(server.pid))
    },
    async thaw() {
      send('SIGCONT', familyOf(server.pid))
    },
    async start() {
      server = await begin()
    },
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
