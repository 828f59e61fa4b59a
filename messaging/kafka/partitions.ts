import type { GroupAssignment } from '@platformatic/kafka'
import type { Batch, BusMessage } from '../bus.ts'

/** A partition that a member of a group owns. */
export interface OwnedPartition {
  readonly topic: string
  readonly partition: number
  /** The offset to fetch from; unknown until it is asked where the group stands. */
  next: bigint | undefined
  /** What the group committed is gone from the log: go on with the oldest message that is there. */
  isLost: boolean
  /** Fetched, not taken; it is fetched again only when this is empty, which bounds the memory. */
  waiting: BusMessage[]
  /**
   * The batch in hand. A partition that was lost is forgotten with its lease, and so the late commit
   * of its batch finds that there is none, also when the partition has come back meanwhile.
   */
  lease: { readonly batch: Batch; readonly sinceMs: number; isOverdue: boolean } | undefined
  /** Up to here all is settled; undefined where the group has followed. */
  settled: bigint | undefined
  isFetching: boolean
}

/** The group can be moved to this offset of a partition. */
export interface Committable {
  readonly partition: OwnedPartition
  readonly offset: bigint
}

/** The partitions of one member: what is fetched, in hand, and to be fetched next. */
export interface Partitions {
  /** Keeps what stays, forgets what is not there any more. */
  assign(assignments: readonly GroupAssignment[]): void
  clear(): void
  /** Takes what is fetched: at most so many messages, shared out evenly over the partitions. */
  take(maxMessages: number, nowMs: number): Batch[]
  /** Their work is done: the group may move past those of them that are still in hand. */
  settle(batches: readonly Batch[]): void
  /** Where the group has to be moved to. */
  uncommitted(): Committable[]
  /** The group was moved; a partition that was lost meanwhile takes no notice. */
  committed(offsets: readonly Committable[]): void
  /** They will be taken again. */
  release(batches: readonly Batch[]): void
  /** Those that nothing is waiting of, in hand or being fetched. */
  idle(): OwnedPartition[]
  isBusy(): boolean
  /** How far the work is done: the first offset that is not settled; not known of all that are owned. */
  positions(): { readonly topic: string; readonly partition: number; readonly offset: bigint }[]
  owns(partition: OwnedPartition): boolean
  /** Batches in hand since before that time that were not told of before. */
  overdue(sinceMs: number): Batch[]
}

export function createPartitions(): Partitions {
  const owned = new Map<string, OwnedPartition>()
  const leasing = (batches: readonly Batch[]) =>
    batches.flatMap((batch) => {
      const partition = owned.get(placeOf(batch))
      return partition?.lease?.batch === batch ? [{ partition, batch }] : []
    })

  return {
    assign(assignments) {
      const places = assignments.flatMap(({ topic, partitions }) =>
        partitions.map((partition) => ({ topic, partition })),
      )
      const assigned = new Set(places.map(placeOf))
      for (const place of owned.keys()) if (!assigned.has(place)) owned.delete(place)
      for (const place of places) {
        if (!owned.has(placeOf(place))) owned.set(placeOf(place), unplaced(place))
      }
    },
    clear: () => owned.clear(),
    take(maxMessages, nowMs) {
      const ready = [...owned.values()].filter((one) => !one.lease && one.waiting.length > 0)
      const limit = Math.max(1, Math.floor(maxMessages / ready.length))
      return ready.map((one) => {
        const messages = one.waiting.splice(0, limit)
        const batch = { topic: one.topic, partition: one.partition, messages }
        one.lease = { batch, sinceMs: nowMs, isOverdue: false }
        return batch
      })
    },
    settle(batches) {
      for (const { partition, batch } of leasing(batches)) {
        partition.settled = batch.messages.at(-1)!.offset + 1n
        partition.lease = undefined
      }
    },
    uncommitted: () =>
      [...owned.values()].flatMap((partition) =>
        partition.settled === undefined ? [] : [{ partition, offset: partition.settled }],
      ),
    committed(offsets) {
      for (const { partition, offset } of offsets) {
        if (partition.settled === offset) partition.settled = undefined
      }
    },
    release(batches) {
      for (const { partition, batch } of leasing(batches)) {
        partition.waiting.unshift(...batch.messages)
        partition.lease = undefined
      }
    },
    idle: () =>
      [...owned.values()].filter(
        ({ lease, waiting, isFetching }) => !lease && waiting.length === 0 && !isFetching,
      ),
    isBusy: () => [...owned.values()].some(({ lease }) => lease !== undefined),
    positions: () =>
      [...owned.values()].flatMap(({ topic, partition, lease, waiting, next }) => {
        const offset = lease?.batch.messages[0]?.offset ?? waiting[0]?.offset ?? next
        return offset === undefined ? [] : [{ topic, partition, offset }]
      }),
    owns: (partition) => owned.get(placeOf(partition)) === partition,
    overdue(sinceMs) {
      const leases = [...owned.values()].flatMap(({ lease }) => lease ?? [])
      const late = leases.filter((lease) => lease.sinceMs < sinceMs && !lease.isOverdue)
      for (const lease of late) lease.isOverdue = true
      return late.map(({ batch }) => batch)
    },
  }
}

const placeOf = ({ topic, partition }: { topic: string; partition: number }) =>
  `${topic}/${partition}`

function unplaced(place: { topic: string; partition: number }): OwnedPartition {
  return {
    ...place,
    next: undefined,
    isLost: false,
    waiting: [],
    lease: undefined,
    settled: undefined,
    isFetching: false,
  }
}
