import { workerData } from 'node:worker_threads'
import { type Edit, plant } from './plant.ts'

/** A thread of the simulator whose services have a bug: everything is loaded after it was planted. */
const assertLoaded = plant((workerData as { edits: readonly Edit[] }).edits)
await import('../simulation/worker.ts')
assertLoaded()
