import { parentPort } from 'node:worker_threads'
import { openStore } from '../simulation/servers/store.ts'
import { type CrashResult, type CrashRun, runCell } from './run.ts'

/** A thread of the crash matrix, which executes the runs that it is sent, one at a time. */
const store = openStore()

export type WorkerResult = Omit<CrashResult, 'arrows'>

parentPort!.on('message', async (run: CrashRun) => {
  const { arrows: _, crossings, ...result } = await runCell(await store, run)
  // Crossings after the crash are not needed.
  const needed = run.crashAt === undefined ? crossings : crossings.slice(0, run.crashAt + 1)
  const message: WorkerResult = { ...result, crossings: needed }
  parentPort!.postMessage(message)
})
