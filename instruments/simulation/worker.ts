import { parentPort, workerData } from 'node:worker_threads'
import { simulate } from './run.ts'
import { openEmptyStore } from './servers/empty-store.ts'
import { openStore } from './servers/store.ts'
import type { SeedResult, SeedRun } from './workers.ts'

/**
 * A thread of the simulator: it runs what it is asked to, one seed after the other. One that is for a
 * few runs only does without the warm database, which takes some ten runs to make.
 */
const isBrief = (workerData as { isBrief?: boolean } | undefined)?.isBrief
const store = isBrief ? openEmptyStore() : openStore()

parentPort!.on('message', async ({ seed, style, profile }: SeedRun) => {
  const result = await simulate(await store, { seed, style, profile })
  const { violations, events, actions, durationMs } = result
  const found: SeedResult = {
    ...{ seed, style, profile: result.profile, violations, events, actions, durationMs },
  }
  parentPort!.postMessage(found)
})
