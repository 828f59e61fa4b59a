import type { GroupAssignment } from '@platformatic/kafka'
import type { Batch, BusMessage } from '../bus.ts'

/** The state of a partition that a group member owns. */
export interface OwnedPartition {
  readonly topic: string
  readonly partition: number
  /** The offset of the next fetch; undefined until the group's committed offset is known. */
  next: bigint | undefined
  /** The committed offset is out of range: continue with the oldest message in the log. */
  isOutOfRange: boolean
  /** Fetched and not taken yet. The next fetch waits until this is empty, which bounds the memory. */
  fetched: BusMessage[]
  /**
   * The batch that was taken and is not settled yet. When a member loses the partition, this whole object is
   * dropped, so a late commit of the batch finds no lease, even if the member owns the partition again by then.
   */
  lease: { readonly batch: Batch; readonly sinceMs: number; isOverdue: boolean } | undefined
  /**
   * The offset up to which all messages are settled but not committed; undefined if there is nothing to
   * commit.
   */
  settled: bigint | undefined
  isFetching: boolean
}

/** An offset that can be committed. */
export interface Committable {
  readonly partition: OwnedPartition
  readonly offset: bigint
}

/** The partitions of one group member: which messages are fetched or taken, and what to fetch next. */
export interface Partitions {
  /**
   * Applies an assignment: keeps the state of partitions that this member keeps, and drops the state of all
   * others.
   */
  assign(assignments: readonly GroupAssignment[]): void
  clear(): void
  /** Takes up to `maxMessages` fetched messages, divided evenly among the partitions that have any. */
  take(maxMessages: number, nowMs: number): Batch[]
  /** Marks batches as settled, so that their offsets can be committed. Ignores batches without a lease. */
  settle(batches: readonly Batch[]): void
  /** The offsets that are settled and not committed. */
  uncommitted(): Committable[]
  /** Records that these offsets were committed. */
  committed(offsets: readonly Committable[]): void
  /** Returns batches, which will be taken again. Ignores batches without a lease. */
  release(batches: readonly Batch[]): void
  /** The partitions to fetch: they have no fetched or taken messages and no fetch in flight. */
  idle(): OwnedPartition[]
  /** Whether any batch is taken and not settled. */
  isBusy(): boolean
  /** The first unsettled offset of each owned partition for which it is known. */
  positions(): { readonly topic: string; readonly partition: number; readonly offset: bigint }[]
  owns(partition: OwnedPartition): boolean
  /** Batches that were taken before `sinceMs` and are not settled. Returns each batch once. */
  overdue(sinceMs: number): Batch[]
}

export function createPartitions(): Partitions {
  const owned = new Map<string, OwnedPartition>()
  const leased = (batches: readonly Batch[]) =>
    batches.flatMap((batch) => {
      const partition = owned.get(keyOf(batch))
      return partition?.lease?.batch === batch ? [{ partition, batch }] : []
    })

  return {
    assign(assignments) {
      const assigned = assignments.flatMap(({ topic, partitions }) =>
        partitions.map((partition) => ({ topic, partition })),
      )
      const assignedKeys = new Set(assigned.map(keyOf))
      for (const key of owned.keys()) if (!assignedKeys.has(key)) owned.delete(key)
      for (const at of assigned) {
        if (!owned.has(keyOf(at))) owned.set(keyOf(at), newlyOwned(at))
      }
    },
    clear: () => owned.clear(),
    take(maxMessages, nowMs) {
      const ready = [...owned.values()].filter((state) => !state.lease && state.fetched.length > 0)
      const limit = Math.max(1, Math.floor(maxMessages / ready.length))
      return ready.map((state) => {
        const messages = state.fetched.splice(0, limit)
        const batch = { topic: state.topic, partition: state.partition, messages }
        state.lease = { batch, sinceMs: nowMs, isOverdue: false }
        return batch
      })
    },
    settle(batches) {
      for (const { partition, batch } of leased(batches)) {
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
      for (const { partition, batch } of leased(batches)) {
        partition.fetched.unshift(...batch.messages)
        partition.lease = undefined
      }
    },
    idle: () =>
      [...owned.values()].filter(
        ({ lease, fetched, isFetching }) => !lease && fetched.length === 0 && !isFetching,
      ),
    isBusy: () => [...owned.values()].some(({ lease }) => lease !== undefined),
    positions: () =>
      [...owned.values()].flatMap(({ topic, partition, lease, fetched, next }) => {
        const offset = lease?.batch.messages[0]?.offset ?? fetched[0]?.offset ?? next
        return offset === undefined ? [] : [{ topic, partition, offset }]
      }),
    owns: (partition) => owned.get(keyOf(partition)) === partition,
    overdue(sinceMs) {
      const leases = [...owned.values()].flatMap(({ lease }) => lease ?? [])
      const late = leases.filter((lease) => lease.sinceMs < sinceMs && !lease.isOverdue)
      for (const lease of late) lease.isOverdue = true
      return late.map(({ batch }) => batch)
    },
  }
}

const keyOf = ({ topic, partition }: { topic: string; partition: number }) =>
  `${topic}/${partition}`

function newlyOwned(at: { topic: string; partition: number }): OwnedPartition {
  return {
    ...at,
    next: undefined,
    isOutOfRange: false,
    fetched: [],
    lease: undefined,
    settled: undefined,
    isFetching: false,
  }
}
