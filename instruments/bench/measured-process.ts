import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import { root } from '../../tools/repository-files.ts'

/**
 * A program of the benchmark in a separate process, so that it does not share an event loop with the
 * benchmark. The program receives each task as a message and sends the result back as another message.
 */
export interface MeasuredProcess<Task, Result> {
  readonly pid: number
  run(task: Task): Promise<Result>
  close(): Promise<void>
}

export async function startMeasured<Task extends object, Result>(
  file: string,
): Promise<MeasuredProcess<Task, Result>> {
  const child = fork(join(root, 'instruments', 'bench', 'programs', file), {
    serialization: 'advanced',
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  return {
    pid: child.pid!,
    run: (task) => resultOf(child, ended, task, file),
    async close() {
      if (child.connected) child.disconnect()
      await ended
    },
  }
}

function resultOf<Result>(
  child: ChildProcess,
  ended: Promise<void>,
  task: object,
  file: string,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    child.once('message', (result) => resolve(result as Result))
    ended.then(() => reject(new Error(`${file} exited without a result`)))
    child.send(task)
  })
}

/**
 * The receiving side, in the started program: runs each task, and exits with the benchmark, even in the
 * middle of a task. Otherwise, a client that keeps trying to reach its server would outlive the benchmark and
 * the server.
 */
export function runTasks<Task, Result>(work: (task: Task) => Promise<Result>): void {
  process.on('message', async (task: Task) => {
    process.send?.(await work(task))
  })
  process.once('disconnect', () => process.exit())
}
