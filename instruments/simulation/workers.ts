import { Worker } from 'node:worker_threads'
import type { ProfileName } from './profiles.ts'
import type { Run, RunResult } from './run.ts'

/** A seed and the style to run it in. */
export interface SeedStyle {
  readonly seed: number
  readonly style: Run['style']
}

export type SeedResult = SeedStyle &
  Pick<RunResult, 'profile' | 'violations' | 'events' | 'operations' | 'durationMs'>

export interface SimulateAllOptions {
  readonly runs: Iterator<SeedStyle>
  readonly workers: number
  readonly profile?: ProfileName | undefined
  readonly limitMs: number
  readonly onDone: (found: SeedResult) => void
}

/** A run as it is sent to a thread. */
export type SeedRun = SeedStyle & { readonly profile?: ProfileName | undefined }

/**
 * Spreads runs over threads, each of which has its own database. Rejects when a thread fails, because a run that
 * throws is a fault of the simulator itself.
 */
export async function simulateAll(options: SimulateAllOptions): Promise<void> {
  const { runs, workers, profile, limitMs, onDone } = options
  const endMs = performance.now() + limitMs
  function* seedRuns(): Generator<SeedRun> {
    for (let next = runs.next(); !next.done && performance.now() < endMs; next = runs.next()) {
      yield { ...next.value, profile }
    }
  }
  const threads = openThreads<SeedRun, SeedResult>(new URL('./worker.ts', import.meta.url), workers)
  try {
    await threads.run(seedRuns(), (_, found) => onDone(found))
  } finally {
    await threads.close()
  }
}

export interface Threads<Task, Result> {
  /** Gives each task to the next free thread; rejects when a thread fails. */
  run(tasks: Iterator<Task>, onResult: (task: Task, result: Result) => void): Promise<void>
  close(): Promise<void>
}

/** Opens threads of a module that replies to each message (a task) with one message (its result). */
export function openThreads<Task, Result>(module: URL, count: number): Threads<Task, Result> {
  const threads = Array.from({ length: count }, () => openThread<Task, Result>(module))
  return {
    async run(tasks, onResult) {
      await Promise.all(
        threads.map(async (thread) => {
          for (let next = tasks.next(); !next.done; next = tasks.next()) {
            onResult(next.value, await thread.run(next.value))
          }
        }),
      )
    },
    async close() {
      await Promise.all(threads.map((thread) => thread.close()))
    },
  }
}

/**
 * With a young generation of this size, most objects of a run are dead before the collector inspects them.
 */
const LIMITS = { maxYoungGenerationSizeMb: 64 }

/** Opens one thread, which can read its own `workerData`. */
export function openThread<Task, Result>(module: URL, workerData?: object) {
  const worker = new Worker(module, { workerData, resourceLimits: LIMITS })
  return {
    run(task: Task): Promise<Result> {
      return new Promise((resolve, reject) => {
        const end = (finish: () => void) => {
          worker.off('message', onMessage)
          worker.off('error', onError)
          worker.off('exit', onExit)
          finish()
        }
        const about = JSON.stringify(task)
        const onMessage = (result: Result) => end(() => resolve(result))
        const onError = (cause: unknown) => end(() => reject(new Error(about, { cause })))
        const onExit = () => end(() => reject(new Error(`${about}: the thread ended`)))
        worker.on('message', onMessage)
        worker.on('error', onError)
        worker.on('exit', onExit)
        worker.postMessage(task)
      })
    },
    close: () => worker.terminate(),
  }
}
