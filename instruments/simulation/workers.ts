import { Worker } from 'node:worker_threads'
import type { ProfileName } from './profiles.ts'
import type { Run, RunResult } from './run.ts'

/** Spreads runs over threads, each of which has a database of its own. */
export interface SeedStyle {
  readonly seed: number
  readonly style: Run['style']
}

export type SeedResult = SeedStyle &
  Pick<RunResult, 'profile' | 'violations' | 'events' | 'actions' | 'durationMs'>

export interface SimulateAllOptions {
  readonly runs: Iterator<SeedStyle>
  readonly workers: number
  readonly profile?: ProfileName | undefined
  readonly limitMs: number
  readonly onDone: (found: SeedResult) => void
}

/** What a thread is asked, one run at a time. */
export type SeedRun = SeedStyle & { readonly profile?: ProfileName | undefined }

/** Rejects when a thread fails: a run that throws is a fault of the simulator. */
export async function simulateAll(options: SimulateAllOptions): Promise<void> {
  const { runs, workers, profile, limitMs, onDone } = options
  const endMs = performance.now() + limitMs
  function* asked(): Generator<SeedRun> {
    for (let next = runs.next(); !next.done && performance.now() < endMs; next = runs.next()) {
      yield { ...next.value, profile }
    }
  }
  const threads = openThreads<SeedRun, SeedResult>(new URL('./worker.ts', import.meta.url), workers)
  try {
    await threads.ask(asked(), (_, found) => onDone(found))
  } finally {
    await threads.close()
  }
}

export interface Threads<Question, Answer> {
  /** Asks all of them, each the thread that is free; rejects when a thread fails. */
  ask(
    questions: Iterator<Question>,
    onAnswer: (question: Question, answer: Answer) => void,
  ): Promise<void>
  close(): Promise<void>
}

/** Threads of a module that answers every message with one. */
export function openThreads<Question, Answer>(
  module: URL,
  count: number,
): Threads<Question, Answer> {
  const threads = Array.from({ length: count }, () => openThread<Question, Answer>(module))
  return {
    async ask(questions, onAnswer) {
      await Promise.all(
        threads.map(async (thread) => {
          for (let next = questions.next(); !next.done; next = questions.next()) {
            onAnswer(next.value, await thread.ask(next.value))
          }
        }),
      )
    },
    async close() {
      await Promise.all(threads.map((thread) => thread.close()))
    },
  }
}

/** What a run leaves behind is then mostly gone by the time that it is looked at. */
const LIMITS = { maxYoungGenerationSizeMb: 64 }

/** One thread; `workerData` is for itself. */
export function openThread<Question, Answer>(module: URL, workerData?: object) {
  const worker = new Worker(module, { workerData, resourceLimits: LIMITS })
  return {
    ask(question: Question): Promise<Answer> {
      return new Promise((resolve, reject) => {
        const end = (finish: () => void) => {
          worker.off('message', onMessage)
          worker.off('error', onError)
          worker.off('exit', onExit)
          finish()
        }
        const about = JSON.stringify(question)
        const onMessage = (answer: Answer) => end(() => resolve(answer))
        const onError = (cause: unknown) => end(() => reject(new Error(about, { cause })))
        const onExit = () => end(() => reject(new Error(`${about}: the thread ended`)))
        worker.on('message', onMessage)
        worker.on('error', onError)
        worker.on('exit', onExit)
        worker.postMessage(question)
      })
    },
    close: () => worker.terminate(),
  }
}
