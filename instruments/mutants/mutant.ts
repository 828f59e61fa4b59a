import type { ProfileName } from '../simulation/profiles.ts'
import type { Run } from '../simulation/run.ts'
import type { Edit } from './plant.ts'

/** A bug that is planted in the product, for the simulator to find. */
export interface Mutant {
  readonly name: string
  /** What is wrong then. */
  readonly breaks: string
  readonly edits: readonly Edit[]
  /** Within so many seeds, each in every style, the simulator must find it. */
  readonly seeds: number
  /** The only ones in which it can show, where that is not all of them. */
  readonly styles?: readonly Run['style'][]
  /** The faults that bring it out; drawn by each seed where nothing is said. */
  readonly profile?: ProfileName
}
