import type { Batch, Bus, OutgoingMessage, Subscription } from '../../../messaging/bus.ts'
import type { Life } from '../world/lives.ts'
import type { Steps } from '../world/steps.ts'
import type { Broker, Member, Share } from './broker.ts'

/** The bus of one life of a process, in which every call to the broker is a step. */
export interface SimulatedBusOptions {
  readonly life: Life
  readonly broker: Broker
  readonly steps: Pick<Steps, 'perform'>
  readonly luck: BusLuck
  /** Called after messages were written, and after batches were taken. */
  readonly onSent?: (messages: readonly OutgoingMessage[]) => void
  readonly onTaken?: (batches: readonly Batch[]) => void
}

/** The decisions that are drawn at random. */
export interface BusLuck {
  /** How many messages of a ready partition are handed over; 0 if they are delayed. */
  messagesOf(share: Share): number
  /** How many of the messages are written before the connection breaks; undefined if it does not break. */
  writtenOf(messages: readonly OutgoingMessage[]): number | undefined
  /** Called when a member has joined, so that its group can notice when this life ends or freezes. */
  onJoined(member: Member): void
}

const MAX_BATCH_MESSAGES = 500

export function createSimulatedBus(options: SimulatedBusOptions): Bus {
  const { life, broker, steps, luck } = options
  const subscriptions = new Set<Subscription>()
  let sent: Promise<void> = Promise.resolve()
  let closed = false

  function assertReachable(): void {
    if (closed) throw new Error('the bus is closed')
    if (broker.isDown()) throw new Error('the broker cannot be reached')
  }

  const perform = <T>(
    kind: 'send' | 'subscribe' | 'take' | 'offsets' | 'ping',
    label: string,
    work: () => T,
  ) =>
    steps.perform(
      life,
      { kind, label },
      () => {
        assertReachable()
        return work()
      },
      (mishap) => new Error(`the connection to the broker broke (${mishap})`),
    )

  function write(messages: readonly OutgoingMessage[]): void {
    const written = luck.writtenOf(messages)
    const whole = messages.slice(0, written)
    broker.append(whole)
    options.onSent?.(whole)
    if (written !== undefined) throw new Error('the connection to the broker broke')
  }

  return {
    async send(messages) {
      if (closed) throw new Error('the bus is closed')
      if (messages.length === 0) return
      const topics = [...new Set(messages.map(({ topic }) => topic))].join()
      // All messages use one connection, so they are written in the order in which they were sent.
      const turn = sent.then(() => perform('send', topics, () => write(messages)))
      sent = turn.catch(() => {})
      await turn
    },
    async subscribe(group, topics) {
      const member = await perform('subscribe', group, () => {
        const joined = broker.join(group, topics)
        // Not after the step: a process that dies before it gets the answer is a member too.
        luck.onJoined(joined)
        return joined
      })
      const subscription = createSubscription(member, {
        group,
        isDown: () => broker.isDown(),
        perform,
        luck,
        onTaken: options.onTaken,
      })
      subscriptions.add(subscription)
      return subscription
    },
    ping: () => perform('ping', 'broker', () => {}),
    async close() {
      closed = true
      for (const subscription of subscriptions) await subscription.close()
    },
  }
}

interface SubscriptionOptions extends Pick<SimulatedBusOptions, 'luck' | 'onTaken'> {
  readonly group: string
  readonly isDown: () => boolean
  readonly perform: <T>(
    kind: 'take' | 'offsets' | 'ping',
    label: string,
    work: () => T,
  ) => Promise<T>
  readonly onTaken: SimulatedBusOptions['onTaken']
}

function createSubscription(member: Member, options: SubscriptionOptions): Subscription {
  const { group, perform, luck } = options

  function takeNow(): Batch[] {
    const ready = member.ready()
    const limit = Math.ceil(MAX_BATCH_MESSAGES / Math.max(1, ready.length))
    const batches = ready.flatMap((share) => {
      const messages = Math.min(limit, luck.messagesOf(share))
      return messages > 0 ? [member.hold(share, messages)] : []
    })
    if (batches.length > 0) options.onTaken?.(batches)
    return batches
  }

  return {
    async take() {
      while (!member.hasLeft()) {
        const change = member.changed()
        const mayHaveMessages = member.ready().length > 0 || options.isDown()
        const batches = mayHaveMessages ? await perform('take', group, takeNow) : []
        if (batches.length > 0) return batches
        await change
      }
      return []
    },
    async commit(batches) {
      member.settle(batches)
      await perform('offsets', group, () => member.commit())
    },
    release: (batches) => member.release(batches),
    lag: () => perform('ping', group, () => member.lag()),
    close: async () => member.leave(),
  }
}
