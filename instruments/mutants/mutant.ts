import type { ProfileName } from '../simulation/profiles.ts'
import type { Run } from '../simulation/run.ts'
import type { Edit } from './plant.ts'

/** A planted bug: a deliberate bug in the product that the simulator must find. */
export interface Mutant {
  readonly name: string
  /** What the bug does, in a sentence for the report. */
  readonly fault: string
  readonly edits: readonly Edit[]
  /** The simulator must find the bug within this number of seeds, each run in every style. */
  readonly seeds: number
  /** The only styles in which the bug can show; all of them if absent. */
  readonly styles?: readonly Run['style'][]
  /** The fault profile that exposes the bug; if absent, each seed draws its own. */
  readonly profile?: ProfileName
}
