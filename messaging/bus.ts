/**
 * The broker as the services see it. A topic is a set of partitions, and a partition is a log whose records
 * have ascending offsets. Records with the same key go to the same partition and so keep their order. A
 * consumer group divides the partitions among its members and stores, per partition, the offset up to which
 * it has processed the log. There are two implementations: `embedded/bus.ts` and `kafka/bus.ts`.
 */
export interface OutgoingMessage {
  readonly topic: string
  readonly key: string
  /** null is a tombstone: it removes the key from a compacted topic. */
  readonly value: Uint8Array | null
  readonly headers: Readonly<Record<string, string>>
}

export interface BusMessage {
  readonly topic: string
  /** A topic that is deleted and recreated keeps its name but gets another id. Absent if unknown. */
  readonly topicId?: string
  readonly partition: number
  readonly offset: bigint
  readonly key: string | null
  readonly value: Uint8Array | null
  readonly headers: Readonly<Record<string, string>>
}

/** Consecutive messages of one partition, never empty. */
export interface Batch {
  readonly topic: string
  readonly partition: number
  readonly messages: readonly BusMessage[]
}

export interface PartitionLag {
  readonly topic: string
  readonly partition: number
  /**
   * Messages that the group has not committed yet. Undefined, rather than zero, if this member does not own
   * the partition: another member may own it, or no member.
   */
  readonly messages: number | undefined
}

/**
 * A member of a consumer group. Once a batch of a partition is taken, that partition yields nothing more
 * until `commit` or `release` is called for the batch. Other partitions are not affected.
 */
export interface Subscription {
  /**
   * Resolves as soon as any idle partition of this member has messages, with one batch per partition that has
   * some. Resolves with an empty list when the subscription is closed. Rejects only when the broker fails; it
   * can be called again after that.
   */
  take(): Promise<Batch[]>
  /**
   * Moves the group's offsets past these batches, except in partitions that this member has lost since it
   * took them. The next messages of the same partitions can be taken before the commit resolves. If it
   * rejects, the offsets may be unchanged: call it again with the same batches.
   */
  commit(batches: readonly Batch[]): Promise<void>
  /** Returns batches unprocessed: this member or another one will take them again. */
  release(batches: readonly Batch[]): void
  /** How far the group is behind, for each partition of the topics. Rejects when the broker does not answer. */
  lag(): Promise<PartitionLag[]>
  /** Leaves the group. Other members will take the batches that this member took and did not commit. */
  close(): Promise<void>
}

export interface Bus {
  /**
   * Resolves when every message is durable. If it rejects, some messages may be durable: send all of them
   * again.
   */
  send(messages: readonly OutgoingMessage[]): Promise<void>
  /** A new group starts at the beginning of each topic. */
  subscribe(group: string, topics: readonly string[]): Promise<Subscription>
  /** Rejects when the broker cannot serve requests. */
  ping(): Promise<void>
  close(): Promise<void>
}

export interface TopicSpec {
  readonly name: string
  readonly partitions: number
  /** Keep only the newest message of each key. */
  readonly compacted: boolean
}
