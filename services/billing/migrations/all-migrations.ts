import { migrations } from './001-initial.ts'
import { deadLetterReplay } from './002-dead-letter-replay.ts'

/** In the order in which they are made. */
export const MIGRATIONS = [...migrations, deadLetterReplay]
