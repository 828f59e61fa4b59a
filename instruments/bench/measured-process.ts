import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import { root } from '../../tools/repository-files.ts'

/**
 * A program of the benchmark beside this one, so that what is measured does not share an event loop
 * with what measures: it gets a task as a message and answers with another.
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
    run: (task) => answerOf(child, ended, task, file),
    async close() {
      if (child.connected) child.disconnect()
      await ended
    },
  }
}

function answerOf<Result>(
  child: ChildProcess,
  ended: Promise<void>,
  task: object,
  file: string,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    child.once('message', (result) => resolve(result as Result))
    ended.then(() => reject(new Error(`${file} ended before it had a result`)))
    child.send(task)
  })
}

/**
 * The other side, in the program that was started: answers each task, and ends with the process that gave it, even
 * in the middle of one. A client that goes on trying to reach its server would otherwise outlive both.
 */
export function answerTasks<Task, Result>(work: (task: Task) => Promise<Result>): void {
  process.on('message', async (task: Task) => {
    process.send?.(await work(task))
  })
  process.once('disconnect', () => process.exit())
}
