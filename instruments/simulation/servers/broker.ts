import type {
  Batch,
  BusMessage,
  OutgoingMessage,
  PartitionLag,
  TopicSpec,
} from '../../../messaging/bus.ts'
import { partitionOf } from '../../../messaging/embedded/partitioner.ts'

/**
 * A broker in memory, with the semantics of Kafka as far as `messaging/bus.ts` asks for them, that
 * outlives the processes. Unlike a real one it can be told to misbehave: to forget who owns what, to
 * go back, to lose everything.
 */
export interface Broker {
  /** Throws where there is no such topic; then nothing is written. */
  append(messages: readonly OutgoingMessage[]): void
  join(group: string, topics: readonly string[]): Member
  groups(): readonly string[]
  /** What is in the log of a topic, partition by partition. */
  messages(topic: string): readonly BusMessage[]
  /** Shares a group's partitions out anew, in an order of the caller's; what is in hand is given up. */
  rebalance(group: string, order: <Item>(items: readonly Item[]) => Item[]): void
  /** Puts a group back by up to so many messages in each partition. */
  rewind(group: string, messages: number): void
  /**
   * Deletes and recreates these topics, or all: they are empty, have new ids, and the groups know no offsets
   * of them. Returns what was in the log.
   */
  recreate(topics?: readonly string[]): readonly LostMessage[]
  /** Until this time, of the clock that it was made with, the broker cannot be reached. */
  downUntilMs: number
  isDown(): boolean
  /** Until this time it answers late. */
  slowUntilMs: number
  isSlow(): boolean
  /** Whether these groups have read everything; one that has never come has read nothing. */
  isRead(groups: readonly string[]): boolean
  /** Whether every group that reads this topic has read all of it. */
  isTopicRead(topic: string): boolean
  /** Where the next message with this key is going to be. */
  nextPlace(topic: string, key: string): { readonly partition: number; readonly offset: bigint }
  /** Lets everybody who waits for messages look again. */
  wake(): void
}

/** A message that was in the log when it was lost, and the groups that had not read it. */
export interface LostMessage {
  readonly message: BusMessage
  readonly unreadBy: readonly string[]
}

export interface Member {
  /** Partitions of this member that have messages and are not in hand. */
  ready(): readonly Share[]
  /** Takes the next messages of a partition in hand. */
  lease(share: Share, messages: number): Batch
  /** Those of the batches that are still this member's are done: what follows them may be taken. */
  settle(batches: readonly Batch[]): void
  /** Moves the group past all that is settled. */
  commit(): void
  release(batches: readonly Batch[]): void
  lag(): PartitionLag[]
  leave(): void
  /** It gave no sign of life for too long: its partitions go to others, and what it commits is refused. */
  expel(): void
  /** It gives signs of life again. */
  rejoin(): void
  /** Resolves when there may be something to take, or the member has left. */
  changed(): Promise<void>
  hasLeft(): boolean
}

/** One partition as one group sees it. */
export interface Share {
  readonly topic: string
  readonly partition: number
  /** How many messages the group has not committed. */
  lag(): number
  /** Until this time nobody is given more of it: its messages are slow. */
  heldUntilMs: number
}

interface OwnedShare extends Share {
  position: bigint
  /** How far the owner's work is done, where that is further than the group. */
  settled: bigint | undefined
  owner: GroupMember | undefined
  lease: Batch | undefined
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
  /** How often each topic was created, where that is more than once. */
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
      lease: undefined,
      heldUntilMs: 0,
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
      if (group) share(group, order)
    },
    rewind(name, messages) {
      for (const one of groups.get(name)?.shares.values() ?? []) {
        one.position = BigInt(Math.max(0, Number(one.position) - messages))
        forget(one)
      }
      wake()
    },
    recreate(names = [...counts.keys()]) {
      const isMeant = ({ topic }: { topic: string }) => names.includes(topic)
      const gone = [...logs.values()].flat().filter(isMeant)
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
        for (const one of [...shares.values()].filter(isMeant)) {
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

/** What an owner knew of its partition. */
function forget(share: OwnedShare): void {
  share.settled = undefined
  share.lease = undefined
}

/** Where the owner of a partition goes on. */
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
  share(group)

  /** A partition that moved meanwhile has another lease, or none. */
  const leased = (batches: readonly Batch[]) =>
    batches.flatMap((batch) => {
      const one = group.shares.get(placeOf(batch.topic, batch.partition))
      return one?.lease === batch ? [{ one, batch }] : []
    })

  return {
    ready: () =>
      [...group.shares.values()].filter(
        (one) =>
          one.owner === self && one.lease === undefined && nextOf(one) < BigInt(logOf(one).length),
      ),
    lease({ topic, partition }, messages) {
      const one = group.shares.get(placeOf(topic, partition))!
      const from = Number(nextOf(one))
      one.lease = { topic, partition, messages: logOf(one).slice(from, from + messages) }
      return one.lease
    },
    settle(batches) {
      for (const { one, batch } of leased(batches)) {
        one.settled = batch.messages.at(-1)!.offset + 1n
        one.lease = undefined
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
      for (const { one } of leased(batches)) one.lease = undefined
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
      if (group.members.delete(self)) share(group)
      wake()
    },
    expel() {
      if (group.members.delete(self)) share(group)
    },
    rejoin() {
      if (left || group.members.has(self)) return
      group.members.add(self)
      share(group)
    },
    changed: () => change.promise,
    hasLeft: () => left,
  }
}

/** Gives each partition to the member with the fewest; what moves is in nobody's hands any more. */
function share(
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
