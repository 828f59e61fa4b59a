import { STYLES } from '../../contracts/style.ts'
import { openThread, type SeedResult, type SeedRun } from '../simulation/workers.ts'
import type { Mutant } from './mutant.ts'
import type { Edit } from './plant.ts'

/** What became of a mutant: the first run that was violated, or none within its seeds. */
export interface HuntResult {
  readonly mutant: Mutant
  readonly found?: SeedResult
  /** How many seeds were tried, the last one in every style or until it was found. */
  readonly seeds: number
  readonly runs: readonly SeedRun[]
  readonly durationMs: number
}

/** `mixed` comes first, because it has a part of each of the others. */
export const STYLES_IN_TURN = ['mixed', ...STYLES.toReversed()] as const

/** Runs take milliseconds each; none takes so long, but for one without an end. */
const RUN_LIMIT_MS = 300_000

/** Runs seed after seed in a thread of its own, whose services have the bug, until it is found. */
export async function hunt(mutant: Mutant, limit: number): Promise<HuntResult> {
  const begun = performance.now()
  const { edits, profile, styles = STYLES_IN_TURN } = mutant
  const thread = openPlanted(edits)
  const runs: SeedRun[] = []
  const ended = (seeds: number) => ({ mutant, seeds, runs, durationMs: performance.now() - begun })
  try {
    for (let seed = 1; seed <= limit; seed += 1) {
      for (const style of styles) {
        const asked = { seed, style, profile }
        runs.push(asked)
        const found = await thread.run(asked)
        if (found.violations.length > 0) return { found, ...ended(seed) }
      }
    }
    return ended(limit)
  } catch (cause) {
    throw new Error(`the mutant "${mutant.name}" cannot be run`, { cause })
  } finally {
    await thread.close()
  }
}

/** Does these runs with the services as they are; yields those that are violated. */
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
  const { ask, close } = openThread<SeedRun, SeedResult>(
    new URL('./worker.ts', import.meta.url),
    about,
  )
  return {
    close,
    async run(asked: SeedRun): Promise<SeedResult> {
      const late = Promise.withResolvers<never>()
      const about = `seed ${asked.seed}, ${asked.style}`
      const giveUp = () => late.reject(new Error(`${about}: has no end`))
      const timer = setTimeout(giveUp, RUN_LIMIT_MS)
      try {
        return await Promise.race([ask(asked), late.promise])
      } finally {
        clearTimeout(timer)
      }
    },
  }
}
