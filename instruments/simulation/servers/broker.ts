// createBroker is long, because every operation of the simulated broker changes the same topics and groups.
import type {
  Batch,
  BusMessage,
  OutgoingMessage,
  PartitionLag,
  TopicSpec,
} from '../../../messaging/bus.ts'
import { partitionOf } from '../../../messaging/embedded/partitioner.ts'

/**
 * A broker in memory that outlives the processes, with the semantics of Kafka that `messaging/bus.ts` requires.
 * Unlike a real broker it can be made to misbehave: to rebalance or rewind a group, and to lose its messages.
 */
export interface Broker {
  /** Writes the messages; if one of the topics does not exist, throws without writing any. */
  append(messages: readonly OutgoingMessage[]): void
  join(group: string, topics: readonly string[]): Member
  groups(): readonly string[]
  /** The messages of a topic, partition by partition. */
  messages(topic: string): readonly BusMessage[]
  /**
   * Assigns a group's partitions again, in the caller's order. A member loses the batches of partitions that move.
   */
  rebalance(group: string, order: <Item>(items: readonly Item[]) => Item[]): void
  /** Moves a group's offset back by up to `messages` in each partition. */
  rewind(group: string, messages: number): void
  /**
   * Deletes and recreates these topics, or all topics. They are then empty and have new ids, and the groups have no
   * offsets in them. Returns the messages that were lost.
   */
  recreate(topics?: readonly string[]): readonly LostMessage[]
  /** The broker cannot be reached until this time, by the clock that it was created with. */
  downUntilMs: number
  isDown(): boolean
  /** The broker responds slowly until this time. */
  slowUntilMs: number
  isSlow(): boolean
  /** Whether these groups have read all messages. A group that has never joined has read none. */
  isRead(groups: readonly string[]): boolean
  /** Whether all groups that read this topic have read all of it. */
  isTopicRead(topic: string): boolean
  /** The position that the next message with this key will have. */
  nextPlace(topic: string, key: string): { readonly partition: number; readonly offset: bigint }
  /** Makes every member that waits for messages check again. */
  wake(): void
}

/** A message that was lost with its log, and the groups that had not read it. */
export interface LostMessage {
  readonly message: BusMessage
  readonly unreadBy: readonly string[]
}

/**
 * A member of a consumer group. A member holds a batch of a partition until it has settled or released it, and gets
 * no other batch of that partition until then.
 */
export interface Member {
  /** This member's partitions that have messages and no held batch. */
  ready(): readonly Share[]
  /** Takes the next messages of a partition as a batch that this member holds. */
  hold(share: Share, messages: number): Batch
  /** Marks as done those batches that this member still holds; the messages after them can then be taken. */
  settle(batches: readonly Batch[]): void
  /** Moves the group's offsets past all settled messages. */
  commit(): void
  release(batches: readonly Batch[]): void
  lag(): PartitionLag[]
  leave(): void
  /**
   * Treats the member as dead, after missing heartbeats: others get its partitions, and its commits have no effect.
   */
  expel(): void
  /** Takes the member back after it was expelled. */
  rejoin(): void
  /** Resolves when there may be messages to take, or the member has left. */
  changed(): Promise<void>
  hasLeft(): boolean
}

/** One partition from the point of view of one group. */
export interface Share {
  readonly topic: string
  readonly partition: number
  /** How many messages are after the group's committed offset. */
  lag(): number
  /** No messages of this partition are handed over until this time: a simulated delay. */
  delayedUntilMs: number
}

interface OwnedShare extends Share {
  position: bigint
  /** The offset up to which the owner has settled messages, if it is beyond the committed offset. */
  settled: bigint | undefined
  owner: GroupMember | undefined
  heldBatch: Batch | undefined
}

interface Group {
  readonly name: string
  readonly shares: Map<string, OwnedShare>
  readonly members: Set<GroupMember>
}

interface GroupMember {
  readonly topics: readonly string[]
  wake(): void
}

export function createBroker(
  topics: readonly TopicSpec[],
  now: () => number,
  onAppended: (message: BusMessage) => void = () => {},
): Broker {
  const logs = new Map<string, BusMessage[]>()
  const counts = new Map<string, number>()
  /** How often each topic was created, for topics that were created more than once. */
  const incarnations = new Map<string, number>()
  const groups = new Map<string, Group>()
  for (const { name, partitions } of topics) {
    counts.set(name, partitions)
    for (let n = 0; n < partitions; n += 1) logs.set(placeOf(name, n), [])
  }

  function partitionsOf(topic: string): number {
    const count = counts.get(topic)
    if (count === undefined) throw new Error(`there is no topic ${topic}`)
    return count
  }

  function nextPlace(topic: string, key: string) {
    const partition = partitionOf(key, partitionsOf(topic))
    return { partition, offset: BigInt(logs.get(placeOf(topic, partition))!.length) }
  }

  function shareOf(topic: string, partition: number): OwnedShare {
    const log = logs.get(placeOf(topic, partition))!
    return {
      topic,
      partition,
      position: 0n,
      settled: undefined,
      owner: undefined,
      heldBatch: undefined,
      delayedUntilMs: 0,
      lag() {
        return log.length - Number(this.position)
      },
    }
  }

  function wake(): void {
    for (const { members } of groups.values()) for (const member of members) member.wake()
  }

  return {
    downUntilMs: 0,
    isDown() {
      return now() < this.downUntilMs
    },
    slowUntilMs: 0,
    isSlow() {
      return now() < this.slowUntilMs
    },
    append(messages) {
      for (const { topic } of messages) partitionsOf(topic)
      for (const { topic, key, value, headers } of messages) {
        const place = nextPlace(topic, key)
        const topicId = `${topic}-${incarnations.get(topic) ?? 1}`
        const message = { topic, topicId, ...place, key, value, headers }
        logs.get(placeOf(topic, place.partition))!.push(message)
        onAppended(message)
      }
      wake()
    },
    join(name, topicNames) {
      const group = groups.get(name) ?? { name, shares: new Map(), members: new Set() }
      for (const topic of topicNames) {
        for (let n = 0; n < partitionsOf(topic); n += 1) {
          const place = placeOf(topic, n)
          if (!group.shares.has(place)) group.shares.set(place, shareOf(topic, n))
        }
      }
      groups.set(name, group)
      return joinGroup(
        group,
        topicNames,
        (share) => logs.get(placeOf(share.topic, share.partition))!,
      )
    },
    groups: () => [...groups.keys()],
    messages: (topic) =>
      Array.from({ length: partitionsOf(topic) }, (_, n) => logs.get(placeOf(topic, n))!).flat(),
    rebalance(name, order) {
      const group = groups.get(name)
      if (group) assign(group, order)
    },
    rewind(name, messages) {
      for (const one of groups.get(name)?.shares.values() ?? []) {
        one.position = BigInt(Math.max(0, Number(one.position) - messages))
        forget(one)
      }
      wake()
    },
    recreate(names = [...counts.keys()]) {
      const matches = ({ topic }: { topic: string }) => names.includes(topic)
      const gone = [...logs.values()].flat().filter(matches)
      const lost = gone.map((message) => ({
        message,
        unreadBy: [...groups.values()].flatMap(({ name, shares }) => {
          const read = shares.get(placeOf(message.topic, message.partition))
          return read && read.position <= message.offset ? [name] : []
        }),
      }))
      for (const name of names) {
        incarnations.set(name, (incarnations.get(name) ?? 1) + 1)
        for (let n = 0; n < partitionsOf(name); n += 1) logs.get(placeOf(name, n))!.length = 0
      }
      for (const { shares } of groups.values()) {
        for (const one of [...shares.values()].filter(matches)) {
          one.position = 0n
          forget(one)
        }
      }
      return lost
    },
    isRead: (names) =>
      names.every((name) => {
        const shares = groups.get(name)?.shares.values()
        return shares !== undefined && [...shares].every((one) => one.lag() === 0)
      }),
    isTopicRead: (topic) =>
      [...groups.values()].every(({ shares }) =>
        [...shares.values()].every((one) => one.topic !== topic || one.lag() === 0),
      ),
    nextPlace,
    wake,
  }
}

/** Discards the uncommitted progress of a partition's owner and the batch that it holds. */
function forget(share: OwnedShare): void {
  share.settled = undefined
  share.heldBatch = undefined
}

/** The next offset that the owner of a partition takes. */
const nextOf = ({ settled, position }: OwnedShare) => settled ?? position

const placeOf = (topic: string, partition: number) => `${topic}/${partition}`

function joinGroup(
  group: Group,
  topics: readonly string[],
  logOf: (share: Share) => readonly BusMessage[],
): Member {
  let change = Promise.withResolvers<void>()
  let left = false
  const wake = () => {
    change.resolve()
    change = Promise.withResolvers()
  }
  const self: GroupMember = { topics, wake }
  group.members.add(self)
  assign(group)

  /**
   * The batches that are still held. A partition that has moved to another member has another held batch or
   * none.
   */
  const held = (batches: readonly Batch[]) =>
    batches.flatMap((batch) => {
      const one = group.shares.get(placeOf(batch.topic, batch.partition))
      return one?.heldBatch === batch ? [{ one, batch }] : []
    })

  return {
    ready: () =>
      [...group.shares.values()].filter(
        (one) =>
          one.owner === self &&
          one.heldBatch === undefined &&
          nextOf(one) < BigInt(logOf(one).length),
      ),
    hold({ topic, partition }, messages) {
      const one = group.shares.get(placeOf(topic, partition))!
      const from = Number(nextOf(one))
      one.heldBatch = { topic, partition, messages: logOf(one).slice(from, from + messages) }
      return one.heldBatch
    },
    settle(batches) {
      for (const { one, batch } of held(batches)) {
        one.settled = batch.messages.at(-1)!.offset + 1n
        one.heldBatch = undefined
      }
      wake()
    },
    commit() {
      for (const one of group.shares.values()) {
        if (one.owner !== self || one.settled === undefined) continue
        one.position = one.settled
        one.settled = undefined
      }
    },
    release(batches) {
      for (const { one } of held(batches)) one.heldBatch = undefined
      wake()
    },
    lag: () =>
      [...group.shares.values()]
        .filter(({ topic }) => topics.includes(topic))
        .map((one) => {
          const { topic, partition, owner } = one
          return { topic, partition, messages: owner === self ? one.lag() : undefined }
        }),
    leave() {
      left = true
      if (group.members.delete(self)) assign(group)
      wake()
    },
    expel() {
      if (group.members.delete(self)) assign(group)
    },
    rejoin() {
      if (left || group.members.has(self)) return
      group.members.add(self)
      assign(group)
    },
    changed: () => change.promise,
    hasLeft: () => left,
  }
}

/** Assigns each partition to the member with the fewest partitions. A partition that moves loses its held batch. */
function assign(
  group: Group,
  order: <Item>(items: readonly Item[]) => Item[] = (items) => [...items],
) {
  const members = order([...group.members])
  const load = new Map(members.map((member) => [member, 0]))
  for (const one of order([...group.shares.values()])) {
    const [owner] = members
      .filter(({ topics }) => topics.includes(one.topic))
      .sort((a, b) => load.get(a)! - load.get(b)!)
    if (owner) load.set(owner, load.get(owner)! + 1)
    if (one.owner !== owner) forget(one)
    one.owner = owner
  }
  for (const member of group.members) member.wake()
}
