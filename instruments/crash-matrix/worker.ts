import { parentPort } from 'node:worker_threads'
import { openStore } from '../simulation/servers/store.ts'
import { type CrashResult, type CrashRun, runCell } from './run.ts'

/** A thread of the crash matrix: it runs what it is asked to, one run after the other. */
const store = openStore()

export type Answer = Omit<CrashResult, 'arrows'>

parentPort!.on('message', async (run: CrashRun) => {
  const { arrows: _, crossings, ...result } = await runCell(await store, run)
  // Of a run with a crash, what comes after it is of no interest.
  const told = run.crashAt === undefined ? crossings : crossings.slice(0, run.crashAt + 1)
  const answer: Answer = { ...result, crossings: told }
  parentPort!.postMessage(answer)
})
