/**
 * The broker as the services see it. A topic is a set of partitions; a partition is a log whose
 * records have rising offsets; records of one key share a partition and so keep their order. A
 * consumer group shares out the partitions among its members and remembers, per partition, the
 * offset up to which it is done. Two implementations: `embedded/bus.ts` and Apache Kafka.
 */
export interface OutgoingMessage {
  readonly topic: string
  readonly key: string
  /** null is a tombstone, which a compacted topic reads as the removal of its key. */
  readonly value: Uint8Array | null
  readonly headers: Readonly<Record<string, string>>
}

export interface BusMessage {
  readonly topic: string
  /** A topic that is deleted and recreated has the same name and another id. Absent where unknown. */
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
   * Messages that the group has not committed. Unknown, and not zero, where the partition is not
   * this member's: another may read it, or nobody.
   */
  readonly messages: number | undefined
}

/**
 * A member of a consumer group. A partition whose batch was taken yields nothing more before `commit`
 * or `release` is called for that batch; the other partitions flow on.
 */
export interface Subscription {
  /**
   * Resolves as soon as any idle partition of this member has messages, with one batch for each
   * that has; resolves with an empty list when the subscription is closed. Rejects only with
   * faults of the broker, after which it may be called again.
   */
  take(): Promise<Batch[]>
  /**
   * Moves the group past these batches. A partition that this member lost meanwhile is left out. What
   * comes next of the others may be taken before this resolves. After a rejection the group may stand
   * where it stood: call again with the same batches.
   */
  commit(batches: readonly Batch[]): Promise<void>
  /** Gives batches back unhandled: they will be taken again, by this member or by another. */
  release(batches: readonly Batch[]): void
  /**
   * How far the group is behind, for each partition of the topics. Rejects when the broker cannot
   * tell now.
   */
  lag(): Promise<PartitionLag[]>
  /** Leaves the group. Batches that were taken and not committed go to others. */
  close(): Promise<void>
}

export interface Bus {
  /** Resolves when every message is durable; after a rejection some may be, so send them again. */
  send(messages: readonly OutgoingMessage[]): Promise<void>
  /** A new group starts at the beginning of each topic. */
  subscribe(group: string, topics: readonly string[]): Promise<Subscription>
  /** Rejects when the broker cannot serve now. */
  ping(): Promise<void>
  close(): Promise<void>
}

export interface TopicSpec {
  readonly name: string
  readonly partitions: number
  /** Keep only the newest message of each key. */
  readonly compacted: boolean
}
