import { Worker } from 'node:worker_threads'
import type { ProfileName } from './profiles.ts'
import type { Run, RunResult } from './run.ts'

/** Spreads runs over threads, each of which has a database of its own. */
export interface SeedStyle {
  readonly seed: number
  readonly style: Run['style']
}

export type Found = SeedStyle &
  Pick<RunResult, 'profile' | 'violations' | 'events' | 'actions' | 'durationMs'>

export interface SimulateAllOptions {
  readonly runs: Iterator<SeedStyle>
  readonly workers: number
  readonly profile?: ProfileName | undefined
  readonly limitMs: number
  readonly onDone: (found: Found) => void
}

/** What a thread is asked, one run at a time. */
export type Asked = SeedStyle & { readonly profile?: ProfileName | undefined }

/** Rejects when a thread fails: a run that throws is a fault of the simulator. */
export async function simulateAll(options: SimulateAllOptions): Promise<void> {
  const { runs, workers, profile, limitMs, onDone } = options
  const endMs = performance.now() + limitMs
  const threads = Array.from({ length: workers }, () => openThread())
  try {
    await Promise.all(
      threads.map(async (thread) => {
        while (performance.now() < endMs) {
          const next = runs.next()
          if (next.done) return
          onDone(await thread.ask({ ...next.value, profile }))
        }
      }),
    )
  } finally {
    await Promise.all(threads.map((thread) => thread.close()))
  }
}

/** What a run leaves behind is then mostly gone by the time that it is looked at. */
const LIMITS = { maxYoungGenerationSizeMb: 64 }

function openThread() {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { resourceLimits: LIMITS })
  return {
    ask(asked: Asked): Promise<Found> {
      return new Promise((resolve, reject) => {
        const end = (finish: () => void) => {
          worker.off('message', onMessage)
          worker.off('error', onError)
          worker.off('exit', onExit)
          finish()
        }
        const about = `seed ${asked.seed}, ${asked.style}`
        const onMessage = (found: Found) => end(() => resolve(found))
        const onError = (cause: unknown) => end(() => reject(new Error(about, { cause })))
        const onExit = () => end(() => reject(new Error(`${about}: the thread ended`)))
        worker.on('message', onMessage)
        worker.on('error', onError)
        worker.on('exit', onExit)
        worker.postMessage(asked)
      })
    },
    close: () => worker.terminate(),
  }
}
