import type { TopicSpec } from './bus.ts'

/** The topics of the flow, as the event contract names them. */
export const TOPICS: readonly TopicSpec[] = [
  { name: 'billing', partitions: 6, compacted: false },
  { name: 'payment', partitions: 6, compacted: false },
  { name: 'balance', partitions: 6, compacted: true },
]
