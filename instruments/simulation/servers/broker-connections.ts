import type { Bus, BusMessage, OutgoingMessage } from '../../../messaging/bus.ts'
import type { Faults } from '../faults/faults.ts'
import type { Chance, Chances } from '../world/chance.ts'
import { type Life, laterIn, type ServiceName } from '../world/lives.ts'
import type { Scheduler } from '../world/scheduler.ts'
import type { Steps } from '../world/steps.ts'
import type { Story } from '../world/story.ts'
import type { Broker, Member, Share } from './broker.ts'
import { createSimulatedBus } from './simulated-bus.ts'

export interface BrokerOptions {
  readonly scheduler: Scheduler
  readonly chances: Chances
  readonly faults: Faults
  readonly story: Story
  readonly steps: Steps
  readonly broker: Broker
}

/** The longest time until a group notices that a member is gone or frozen, or is back. */
const SLOWEST_NOTICE_MS = 2_500
const LONGEST_DELAY_MS = 4_000

/**
 * The connections of processes to the broker, with their faults: delays, duplicates, partial sends and lost
 * members.
 */
export function connectToBroker(options: BrokerOptions) {
  const { scheduler, chances, faults, story, steps, broker } = options
  let copiesInFlight = 0
  const members = new Map<Life, readonly Member[]>()
  const noticeMs = (chance: Chance) => chance.next() ** 2 * SLOWEST_NOTICE_MS

  function copyLater(message: OutgoingMessage, delayMs: number): void {
    copiesInFlight += 1
    scheduler.after(delayMs, () => {
      copiesInFlight -= 1
      story.record('broker', 'broker', `duplicate: ${describeMessage(message)}`)
      broker.append([message])
    })
  }

  function busOf(life: Life): Bus {
    const chance = chances(`luck of ${life.name}`)
    const service = life.service as ServiceName
    return createSimulatedBus({
      life,
      broker,
      steps,
      luck: {
        messagesOf(share: Share) {
          if (scheduler.now() < share.delayedUntilMs) return 0
          if (!faults.happens('message delayed', `${life.name} ${share.topic}/${share.partition}`))
            return chance.happens(0.6) ? share.lag() : 1 + chance.integer(share.lag())
          const delayMs = chance.next() * LONGEST_DELAY_MS
          share.delayedUntilMs = scheduler.now() + delayMs
          scheduler.after(delayMs + 0.001, broker.wake)
          return 0
        },
        writtenOf: (messages) =>
          faults.happens('send in part', life.name) ? chance.integer(messages.length) : undefined,
        onJoined(member) {
          members.set(life, [...(members.get(life) ?? []), member])
          life.onEnd(() => scheduler.after(noticeMs(chance), () => member.leave()))
        },
      },
      onSent(messages) {
        for (const message of messages) {
          story.record(service, 'broker', describeMessage(message))
          const isDuplicated = faults.happens('message doubled', message.topic)
          if (isDuplicated) copyLater(message, chance.next() * LONGEST_DELAY_MS)
        }
      },
      onTaken(batches) {
        for (const message of batches.flatMap((batch) => batch.messages)) {
          story.record('broker', service, describeMessage(message))
        }
      },
    })
  }

  /** A group expels a member that stays frozen, and takes it back some time after the thaw. */
  function freeze(life: Life): void {
    const chance = chances(`luck of ${life.name}`)
    for (const member of members.get(life) ?? []) {
      const cancel = scheduler.after(noticeMs(chance), () => member.expel())
      life.onThaw(() => {
        cancel()
        laterIn(life, scheduler, noticeMs(chance), () => member.rejoin())
      })
    }
  }

  return { busOf, freeze, areDelivered: () => copiesInFlight === 0 }
}

function describeMessage({ topic, value }: Pick<BusMessage, 'topic' | 'value'>): string {
  const text = new TextDecoder().decode(value ?? undefined)
  if (!text.startsWith('{')) return `${topic}: ${text}`
  const body = JSON.parse(text)
  const { event, orderId, accountId, balance } = body as Record<string, unknown>
  if (balance !== undefined) return `${topic}: ${balance} on ${short(accountId)}`
  return `${topic}: ${event} ${short(orderId ?? accountId)}`
}

/** The end of an id, which is enough to tell ids apart. */
const short = (id: unknown) => String(id).slice(-6)
