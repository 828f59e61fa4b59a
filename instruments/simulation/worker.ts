import { parentPort, workerData } from 'node:worker_threads'
import { simulate } from './run.ts'
import { openEmptyStore } from './servers/empty-store.ts'
import { openStore } from './servers/store.ts'
import type { SeedResult, SeedRun } from './workers.ts'

/**
 * A thread of the simulator, which executes the runs that it is sent, one at a time. A thread for only a few runs
 * (`isBrief`) does without the warm database, because warming it up takes as long as about ten runs.
 */
const isBrief = (workerData as { isBrief?: boolean } | undefined)?.isBrief
const store = isBrief ? openEmptyStore() : openStore()

parentPort!.on('message', async ({ seed, style, profile }: SeedRun) => {
  const result = await simulate(await store, { seed, style, profile })
  const { violations, events, operations, durationMs } = result
  const found: SeedResult = {
    seed,
    style,
    profile: result.profile,
    violations,
    events,
    operations,
    durationMs,
  }
  parentPort!.postMessage(found)
})
