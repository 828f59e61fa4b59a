import type { InteractionStyle } from '../../contracts/style.ts'
import type { Bus, BusMessage, OutgoingMessage } from '../../messaging/bus.ts'
import type { Deliver } from '../../messaging/relay-calls.ts'
import type { ServiceParts } from '../../messaging/service.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { type Broker, createBroker, type LostMessage, type Share } from './broker.ts'
import { type Chances, createChances } from './chance.ts'
import { type Deployment, drawDeployment, type Settings } from './deployment.ts'
import type { Store } from './empty-store.ts'
import { createFaults, type Faults } from './faults.ts'
import { type ForeignMessage, sendForeign } from './foreign-messages.ts'
import { createLife, type Life, SERVICES, type ServiceName } from './lives.ts'
import { createMailbox, type Mailbox } from './mailbox.ts'
import type { StepKind } from './mishaps.ts'
import { type Client, createNetwork } from './network.ts'
import { inertParts, runtimeOf } from './parts.ts'
import type { Planned } from './plan.ts'
import { type Processes, startProcesses } from './processes.ts'
import type { Profile } from './profiles.ts'
import { createScheduler, type Scheduler } from './scheduler.ts'
import { createSimulatedBus } from './simulated-bus.ts'
import { createDatabases, type SimulatedDatabases } from './simulated-database.ts'
import { createSteps, type Steps } from './steps.ts'
import { createStory, type Story } from './story.ts'
import { strike } from './strikes.ts'

/**
 * The simulated world: processes of the three services on one database, one broker and one network,
 * under one clock. Processes come and go; the database, the broker and the letters stay.
 */
export interface World {
  readonly scheduler: Scheduler
  readonly chances: Chances
  readonly faults: Faults
  readonly databases: SimulatedDatabases
  readonly story: Story
  readonly mailbox: Mailbox
  readonly settings: Settings
  /** What the log held each time it was lost. */
  readonly lost: readonly LostMessage[]
  /** What programs that are not ours have sent. */
  readonly foreign: readonly ForeignMessage[]
  /** The topic `balance` from its first message on. */
  balanceStream(): readonly BusMessage[]
  /** The client of somebody outside. */
  readonly customer: Client
  /** Whether every message that was sent, and every copy of one, is read. */
  isRead(): boolean
  /** Lets something that was planned take place. */
  strike(planned: Planned): Promise<void>
  /** Puts messages into the log that are no service's. */
  publish(messages: readonly OutgoingMessage[]): void
  /** Ends all faults: whatever is away comes back. */
  heal(): void
}

/** Changes what a service is made of: how a bug is planted that the product does not have. */
export interface Planted {
  parts?(service: ServiceName, parts: ServiceParts, life: MortalLife): ServiceParts
  letter?(deliver: Deliver, life: MortalLife): Deliver
}

/** A life with the means to end it, for who plants a crash. */
export interface MortalLife {
  readonly name: string
  readonly service: ServiceName
  isAlive(): boolean
  /** Ends it at once: nothing that it still asks of the world is done. */
  crash(why: string): void
}

export interface WorldOptions {
  readonly seed: number
  readonly style: InteractionStyle | 'mixed'
  readonly profile: Profile
  readonly store: Store
  readonly without?: ReadonlySet<string> | undefined
  readonly isTold?: boolean | undefined
  readonly planted?: Planted | undefined
  readonly turns?: number | undefined
  /** Drawn from the seed where it is not given. */
  readonly deployment?: Deployment | undefined
}

const IS_OF_BROKER: ReadonlySet<StepKind> = new Set(['send', 'take', 'offsets'])

export function createWorld(options: WorldOptions): World {
  const { seed, style, profile, store, without, planted } = options
  const chances = createChances(seed)
  const scheduler = createScheduler({ ...(options.turns && { turns: options.turns }) })
  store.useClock(scheduler.now)
  const story = createStory(scheduler.now, options.isTold ?? false)
  const faults = createFaults({ chances, profile, ...(without && { without }) })
  const crash = (life: Life) => processes.crash(life)
  const isSlow = (kind: StepKind) => IS_OF_BROKER.has(kind) && broker.isSlow()
  const steps = createSteps({ scheduler, faults, chances, story, crash, isSlow })
  const databases = createDatabases({
    ...{ session: store.session, scheduler, steps },
    losesSignal: (channel) => faults.happens('signal lost', channel),
  })
  const broker = createBroker(TOPICS, scheduler.now)
  const lost: LostMessage[] = []
  const foreign: ForeignMessage[] = []
  const coming: ForeignMessage[] = []
  const messages = connectToBroker({
    ...{ scheduler, chances, faults, story, steps, broker },
    onSent(key, topic) {
      for (const one of coming.filter((message) => message.topic === topic)) {
        coming.splice(coming.indexOf(one), 1)
        foreign.push(one)
        sendForeign(broker, one, key)
      }
    },
  })
  const network = createNetwork({ scheduler, faults, chances, story })
  const mailbox = createMailbox()
  const shape = chances('shape')
  const deployment = options.deployment ?? drawDeployment(style, shape, chances('processes'))
  const { settings } = deployment
  const mortal = (life: Life): MortalLife => ({
    name: life.name,
    service: life.service as ServiceName,
    isAlive: () => life.alive,
    crash(why) {
      story.tell(life.service as ServiceName, life.service as ServiceName, why)
      processes.kill(life)
    },
  })

  const processes: Processes = startProcesses({
    ...{ scheduler, chances, story, deployment, maxSkewMs: profile.maxSkewMs },
    partsOf(life) {
      const parts: ServiceParts = {
        ...inertParts,
        database: databases.of(life),
        bus: messages.busOf(life),
        http: network.clientOf(life),
        runtime: runtimeOf(life, scheduler, chances(`chance of ${life.name}`)),
        soleProcess: deployment.isSoleProcess,
      }
      return planted?.parts?.(life.service as ServiceName, parts, mortal(life)) ?? parts
    },
    letterOf(life) {
      const deliver = mailbox.deliverFrom(life, steps, story)
      return planted?.letter?.(deliver, mortal(life)) ?? deliver
    },
    onStart: network.mount,
    onEnd: databases.abandon,
  })

  const onLost = (gone: readonly LostMessage[]) => lost.push(...gone)
  const at = { scheduler, chance: shape, story, broker, databases, processes, onLost, coming }
  return {
    ...{ scheduler, chances, faults, databases, story, mailbox, settings, lost, foreign },
    balanceStream: () => [
      ...lost.flatMap(({ message }) => (message.topic === 'balance' ? [message] : [])),
      ...broker.messages('balance'),
    ],
    customer: network.clientOf(createLife('customer', 'customer')),
    isRead: () => messages.areDelivered() && broker.isRead(SERVICES),
    strike: (planned) => strike(at, planned),
    publish: broker.append,
    heal() {
      faults.stop()
      broker.awayUntilMs = 0
      broker.slowUntilMs = 0
      broker.wake()
      databases.away = { untilMs: 0, services: new Set() }
      databases.losing = databases.away
    },
  }
}

interface BrokerOptions extends Pick<World, 'scheduler' | 'chances' | 'faults' | 'story'> {
  readonly steps: Steps
  readonly broker: Broker
  /** Called when a message is in the log. */
  readonly onSent: (key: string, topic: string) => void
}

/** After so long without a sign of life a member of a group is taken for dead. */
const SLOWEST_NOTICE_MS = 2_500
const LONGEST_DELAY_MS = 4_000

/** The connections of lives to the broker, and what goes wrong on the way. */
function connectToBroker(options: BrokerOptions) {
  const { scheduler, chances, faults, story, steps, broker } = options
  let copiesOnTheWay = 0

  function copyLater(message: OutgoingMessage, delayMs: number): void {
    copiesOnTheWay += 1
    scheduler.after(delayMs, () => {
      copiesOnTheWay -= 1
      story.tell('broker', 'broker', `once more: ${tellMessage(message)}`)
      broker.append([message])
    })
  }

  function busOf(life: Life): Bus {
    const chance = chances(`luck of ${life.name}`)
    const service = life.service as ServiceName
    return createSimulatedBus({
      ...{ life, broker, steps },
      luck: {
        messagesOf(share: Share) {
          if (scheduler.now() < share.heldUntilMs) return 0
          if (!faults.happens('message delayed', `${life.name} ${share.topic}/${share.partition}`))
            return chance.happens(0.6) ? share.lag() : 1 + chance.integer(share.lag())
          const delayMs = chance.next() * LONGEST_DELAY_MS
          share.heldUntilMs = scheduler.now() + delayMs
          scheduler.after(delayMs + 0.001, broker.wake)
          return 0
        },
        writtenOf: (messages) =>
          faults.happens('send in part', life.name) ? chance.integer(messages.length) : undefined,
        onNoticed: (leave) =>
          life.onEnd(() => scheduler.after(chance.next() ** 2 * SLOWEST_NOTICE_MS, leave)),
      },
      onSent(messages) {
        for (const message of messages) {
          story.tell(service, 'broker', tellMessage(message))
          options.onSent(message.key, message.topic)
          const isDoubled = faults.happens('message doubled', message.topic)
          if (isDoubled) copyLater(message, chance.next() * LONGEST_DELAY_MS)
        }
      },
      onTaken(batches) {
        for (const message of batches.flatMap((batch) => batch.messages)) {
          story.tell('broker', service, tellMessage(message))
        }
      },
    })
  }

  return { busOf, areDelivered: () => copiesOnTheWay === 0 }
}

function tellMessage({ topic, value }: Pick<BusMessage, 'topic' | 'value'>): string {
  const text = new TextDecoder().decode(value ?? undefined)
  if (!text.startsWith('{')) return `${topic}: ${text}`
  const body = JSON.parse(text)
  const { event, orderId, accountId, balance } = body as Record<string, unknown>
  if (balance !== undefined) return `${topic}: ${balance} on ${short(accountId)}`
  return `${topic}: ${event} ${short(orderId ?? accountId)}`
}

/** The end of an id, which differs from others. */
const short = (id: unknown) => String(id).slice(-6)
