import { STYLES } from '../../contracts/style.ts'
import { openThread, type SeedResult, type SeedRun } from '../simulation/workers.ts'
import type { Mutant } from './mutant.ts'
import type { Edit } from './plant.ts'

/** The result of hunting one mutant. `found` is the first run with a violation. */
export interface HuntResult {
  readonly mutant: Mutant
  readonly found?: SeedResult
  /** How many seeds were tried; the styles of the last seed were run only until the bug was found. */
  readonly seeds: number
  readonly runs: readonly SeedRun[]
  readonly durationMs: number
}

/** The order in which a seed runs in the styles: `mixed` is first because it covers all the others. */
export const STYLES_IN_TURN = ['mixed', ...STYLES.toReversed()] as const

/** A run takes milliseconds, so a run that takes this long will never end. */
const RUN_LIMIT_MS = 300_000

/** Runs seed after seed in a thread with the planted bug, until a run has a violation. */
export async function hunt(mutant: Mutant, limit: number): Promise<HuntResult> {
  const startedMs = performance.now()
  const { edits, profile, styles = STYLES_IN_TURN } = mutant
  const thread = openPlanted(edits)
  const runs: SeedRun[] = []
  const ended = (seeds: number) => ({
    mutant,
    seeds,
    runs,
    durationMs: performance.now() - startedMs,
  })
  try {
    for (let seed = 1; seed <= limit; seed += 1) {
      for (const style of styles) {
        const run = { seed, style, profile }
        runs.push(run)
        const found = await thread.run(run)
        if (found.violations.length > 0) return { found, ...ended(seed) }
      }
    }
    return ended(limit)
  } catch (cause) {
    throw new Error(`the mutant "${mutant.name}" cannot run`, { cause })
  } finally {
    await thread.close()
  }
}

/** Repeats runs without any planted bug; yields the runs with a violation. */
export async function* runUnchanged(runs: Iterable<SeedRun>): AsyncGenerator<SeedResult> {
  const thread = openPlanted([])
  try {
    for (const run of runs) {
      const found = await thread.run(run)
      if (found.violations.length > 0) yield found
    }
  } finally {
    await thread.close()
  }
}

function openPlanted(edits: readonly Edit[]) {
  const about = { edits, isBrief: true }
  const thread = openThread<SeedRun, SeedResult>(new URL('./worker.ts', import.meta.url), about)
  return {
    close: thread.close,
    async run(run: SeedRun): Promise<SeedResult> {
      const late = Promise.withResolvers<never>()
      const about = `seed ${run.seed}, ${run.style}`
      const giveUp = () => late.reject(new Error(`${about}: the run does not end`))
      const timer = setTimeout(giveUp, RUN_LIMIT_MS)
      try {
        return await Promise.race([thread.run(run), late.promise])
      } finally {
        clearTimeout(timer)
      }
    },
  }
}
