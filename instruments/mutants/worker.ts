import { workerData } from 'node:worker_threads'
import { type Edit, plant } from './plant.ts'

/** A simulator thread with a planted bug. It imports the services only after planting it. */
const assertLoaded = plant((workerData as { edits: readonly Edit[] }).edits)
await import('../simulation/worker.ts')
assertLoaded()
