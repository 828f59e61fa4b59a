import type { Batch, Subscription } from '../bus.ts'
import type { EmbeddedLog, Position } from './log.ts'

/**
 * A consumer group of the embedded bus. Its members are kept in memory, because the process that owns the log
 * also has all members. Its offsets are stored in the database, and `position` mirrors them.
 */
export interface Group {
  readonly name: string
  readonly shares: Map<string, Share>
  readonly members: Set<Member>
}

/** The state of one partition in one group. */
interface Share {
  readonly end: LogEnd
  /** The next offset to read: the committed offset, or a later one if unread messages were deleted. */
  position: bigint
  owner: Member | undefined
  /**
   * Identifies the owner's read in progress or the batch that it took. When a partition moves to another
   * owner, its lease is dropped, so a late commit of the old owner finds no lease.
   */
  lease: object | undefined
}

/** The known end of a partition, shared by all groups. `send` moves it forward. */
export interface LogEnd {
  readonly topic: string
  readonly partition: number
  offset: bigint
}

interface Member {
  readonly topics: ReadonlySet<string>
  wake(): void
}

export const partitionKey = ({ topic, partition }: { topic: string; partition: number }) =>
  `${topic}/${partition}`

export function wakeMembers(group: Group): void {
  for (const member of group.members) member.wake()
}

export interface SubscriptionOptions {
  readonly log: EmbeddedLog
  readonly group: Group
  readonly topics: readonly string[]
  /** The group's offsets in the database, for each partition of the topics. */
  readonly positions: readonly Position[]
  readonly ends: ReadonlyMap<string, LogEnd>
  /** The most messages that one take returns, divided evenly among the partitions that have any. */
  readonly maxBatchMessages: number
  /** Throws while the bus is paused or closed. */
  readonly assertReachable: () => void
}

/** Adds a member to the group and rebalances it. */
export function openSubscription(options: SubscriptionOptions): Subscription {
  const { log, group, topics, assertReachable } = options
  let closed = false
  let nextChange = Promise.withResolvers<void>()
  const wake = () => {
    nextChange.resolve()
    nextChange = Promise.withResolvers()
  }
  const member: Member = { topics: new Set(topics), wake }
  for (const at of options.positions) {
    const key = partitionKey(at)
    if (group.shares.has(key)) continue
    const end = options.ends.get(key)!
    group.shares.set(key, { end, position: at.offset, owner: undefined, lease: undefined })
  }
  group.members.add(member)
  rebalance(group)

  const leasedBy = (batches: readonly Batch[]) =>
    batches.flatMap((batch) => {
      const share = group.shares.get(partitionKey(batch))
      return share?.lease === batch ? [{ share, batch }] : []
    })

  /**
   * Reads all ready partitions in one statement, and leases the partitions that this member still owns after
   * the read.
   */
  async function fetch(ready: readonly Share[]): Promise<Batch[]> {
    const reading = {}
    const from = ready.map(({ end, position }) => ({ ...end, offset: position }))
    const upTo = ready.map(({ end }) => end.offset)
    for (const share of ready) share.lease = reading
    const limit = Math.max(1, Math.floor(options.maxBatchMessages / ready.length))
    try {
      const lists = await log.read(from, limit)
      return ready.flatMap((share, index) => {
        if (share.lease !== reading) return []
        const { topic, partition } = share.end
        const batch = { topic, partition, messages: lists[index]! }
        share.lease = batch.messages.length > 0 ? batch : undefined
        // Retention has deleted all messages up to the end, so continue from there.
        if (share.lease === undefined) share.position = upTo[index]!
        return share.lease === undefined ? [] : [batch]
      })
    } finally {
      for (const share of ready) if (share.lease === reading) share.lease = undefined
    }
  }

  return {
    async take() {
      while (!closed) {
        assertReachable()
        const ready = [...group.shares.values()].filter(
          ({ owner, lease, position, end }) =>
            owner === member && lease === undefined && position < end.offset,
        )
        if (ready.length === 0) {
          await nextChange.promise
          continue
        }
        const batches = await fetch(ready)
        if (batches.length > 0) return batches
      }
      return []
    },

    async commit(batches) {
      assertReachable()
      const own = leasedBy(batches)
      if (own.length === 0) return
      const nextOf = (batch: Batch) => batch.messages.at(-1)!.offset + 1n
      await log.moveGroup(
        group.name,
        own.map(({ batch }) => ({ ...batch, offset: nextOf(batch) })),
      )
      for (const { share, batch } of own) {
        const next = nextOf(batch)
        if (share.position < next) share.position = next
        if (share.lease === batch) share.lease = undefined
      }
      wake()
    },

    release(batches) {
      for (const { share } of leasedBy(batches)) share.lease = undefined
      wake()
    },

    async lag() {
      assertReachable()
      return [...group.shares.values()]
        .filter(({ end }) => member.topics.has(end.topic))
        .map(({ end: { topic, partition, offset }, owner, position }) => {
          const messages = owner === member ? Number(offset - position) : undefined
          return { topic, partition, messages }
        })
    },

    async close() {
      closed = true
      if (group.members.delete(member)) rebalance(group)
      wake()
    },
  }
}

/**
 * Divides the partitions evenly among the members that read them, and moves as few as possible, idle ones first.
 * The new owner of a partition starts at the group's committed offset.
 */
function rebalance(group: Group): void {
  const load = new Map([...group.members].map((member) => [member, 0]))
  const lightest = ({ end }: Share) =>
    [...group.members]
      .filter(({ topics }) => topics.has(end.topic))
      .sort((a, b) => load.get(a)! - load.get(b)!)[0]
  const give = (share: Share, owner: Member | undefined) => {
    if (share.owner && load.has(share.owner)) load.set(share.owner, load.get(share.owner)! - 1)
    share.owner = owner
    share.lease = undefined
    if (owner) load.set(owner, load.get(owner)! + 1)
  }
  const overloadsOwner = (share: Share) =>
    share.owner !== undefined && load.get(share.owner)! - load.get(lightest(share)!)! > 1

  const shares = [...group.shares.values()]
  for (const { owner } of shares) {
    if (owner && load.has(owner)) load.set(owner, load.get(owner)! + 1)
  }
  for (const share of shares) {
    if (!share.owner || !load.has(share.owner)) give(share, lightest(share))
  }
  const idleFirst = shares.toSorted((a, b) => Number(!!a.lease) - Number(!!b.lease))
  for (let next = idleFirst.find(overloadsOwner); next; next = idleFirst.find(overloadsOwner)) {
    give(next, lightest(next))
  }
  wakeMembers(group)
}
