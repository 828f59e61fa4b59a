import type { ServiceParts } from '../../../chassis/service.ts'
import type { InteractionStyle } from '../../../contracts/style.ts'
import type { BusMessage, OutgoingMessage } from '../../../messaging/bus.ts'
import type { Deliver } from '../../../messaging/outbox/relay-calls.ts'
import { TOPICS } from '../../../messaging/topics.ts'
import { createFaults, type Faults } from '../faults/faults.ts'
import {
  createForeignProgram,
  type ForeignMessage,
  type ForeignProgram,
} from '../faults/foreign-messages.ts'
import { createFreezer } from '../faults/freezes.ts'
import type { StepKind } from '../faults/mishaps.ts'
import { strike } from '../faults/strikes.ts'
import type { Planned } from '../plan.ts'
import type { Profile } from '../profiles.ts'
import { createBroker, type LostMessage } from '../servers/broker.ts'
import { connectToBroker } from '../servers/broker-connections.ts'
import type { Store } from '../servers/empty-store.ts'
import { createMailbox, type Mailbox } from '../servers/mailbox.ts'
import { type Client, createNetwork } from '../servers/network.ts'
import { createDatabases, type SimulatedDatabases } from '../servers/simulated-database.ts'
import { type Chances, createChances } from './chance.ts'
import { type Deployment, drawDeployment, type Settings } from './deployment.ts'
import { createLife, type Life, SERVICES, type ServiceName } from './lives.ts'
import { inertParts, runtimeOf } from './parts.ts'
import { type Processes, startProcesses } from './processes.ts'
import { createScheduler, type Scheduler } from './scheduler.ts'
import { createSteps } from './steps.ts'
import { createStory, type Story } from './story.ts'

/**
 * The simulated world: processes of the three services with one database, one broker and one network, in one
 * simulated time. Processes come and go; the database, the broker and the delivered letters remain.
 */
export interface World {
  readonly scheduler: Scheduler
  readonly chances: Chances
  readonly faults: Faults
  readonly databases: SimulatedDatabases
  readonly story: Story
  readonly mailbox: Mailbox
  readonly settings: Settings
  /** The messages that were lost with the log or with a topic, over all losses of the run. */
  readonly lost: readonly LostMessage[]
  /** The messages that the foreign program has sent. */
  readonly foreign: readonly ForeignMessage[]
  /** All messages of the topic `balance`, including those that were lost with the log. */
  balanceStream(): readonly BusMessage[]
  /** The HTTP client of the customers. */
  readonly customer: Client
  /** Whether the services have read every message, including delayed copies. */
  isRead(): boolean
  /** Makes a planned fault happen. */
  strike(planned: Planned): Promise<void>
  /** Appends messages that no service has sent to the log. */
  publish(messages: readonly OutgoingMessage[]): void
  /**
   * Ends all faults: servers come back, and frozen processes are thawed, except if another process of the
   * same service is running.
   */
  heal(): void
  /** Thaws all frozen processes; returns whether there were any. */
  thaw(): boolean
}

/** Replaces parts of services, to plant crashes or bugs. */
export interface Planted {
  parts?(service: ServiceName, parts: ServiceParts, life: MortalLife): ServiceParts
  letter?(deliver: Deliver, life: MortalLife): Deliver
}

/** A life that planted code can end. */
export interface MortalLife {
  readonly name: string
  readonly service: ServiceName
  isAlive(): boolean
  /** Ends the life at once: no operation that its code still starts is done. `why` is recorded in the story. */
  crash(why: string): void
}

export interface WorldOptions {
  readonly seed: number
  readonly style: InteractionStyle | 'mixed'
  readonly profile: Profile
  readonly store: Store
  readonly without?: ReadonlySet<string> | undefined
  readonly isTraced?: boolean | undefined
  readonly planted?: Planted | undefined
  readonly turns?: number | undefined
  /** Drawn from the seed if absent. */
  readonly deployment?: Deployment | undefined
}

const IS_OF_BROKER: ReadonlySet<StepKind> = new Set(['send', 'take', 'offsets'])

export function createWorld(options: WorldOptions): World {
  const { seed, style, profile, store, without, planted } = options
  const chances = createChances(seed)
  const scheduler = createScheduler({ ...(options.turns && { turns: options.turns }) })
  store.useClock(scheduler.now)
  const story = createStory(scheduler.now, options.isTraced ?? false)
  const faults = createFaults({ chances, profile, ...(without && { without }) })
  const crash = (life: Life) => processes.crash(life)
  const isSlow = (kind: StepKind) => IS_OF_BROKER.has(kind) && broker.isSlow()
  const freezer = createFreezer({
    scheduler,
    story,
    onFreeze(life, durationMs) {
      messages.freeze(life)
      return databases.freeze(life, durationMs)
    },
  })
  const { freeze } = freezer
  const steps = createSteps({ scheduler, faults, chances, story, crash, freeze, isSlow })
  const databases = createDatabases({
    session: store.session,
    scheduler,
    steps,
    losesSignal: (channel) => faults.happens('signal lost', channel),
  })
  const broker = createBroker(TOPICS, scheduler.now, (message) => foreign.follow(message))
  const lost: LostMessage[] = []
  const foreign: ForeignProgram = createForeignProgram(broker, chances('foreign program'))
  const messages = connectToBroker({ scheduler, chances, faults, story, steps, broker })
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
      story.record(life.service as ServiceName, life.service as ServiceName, why)
      processes.kill(life)
    },
  })

  const processes: Processes = startProcesses({
    scheduler,
    chances,
    story,
    deployment,
    clocks: profile.clocks,
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
  const parts = { scheduler, story, broker, databases, processes, freeze, foreign }
  const at = { ...parts, chance: shape, onLost }
  return {
    scheduler,
    chances,
    faults,
    databases,
    story,
    mailbox,
    settings,
    lost,
    foreign: foreign.sent,
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
      broker.downUntilMs = 0
      broker.slowUntilMs = 0
      broker.wake()
      databases.down = { untilMs: 0, services: new Set() }
      databases.conflicting = databases.down
      freezer.thaw((life) => !processes.hasTwin(life))
    },
    thaw: () => freezer.thaw(() => true),
  }
}
