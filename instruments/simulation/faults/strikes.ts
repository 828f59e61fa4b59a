import type { Planned } from '../plan.ts'
import type { PlannedKind } from '../profiles.ts'
import type { Broker, LostMessage } from '../servers/broker.ts'
import type { SimulatedDatabases } from '../servers/simulated-database.ts'
import type { Chance } from '../world/chance.ts'
import { drawOffsetMs } from '../world/clocks.ts'
import { type Life, SERVICES } from '../world/lives.ts'
import type { Processes } from '../world/processes.ts'
import type { Scheduler } from '../world/scheduler.ts'
import type { Story } from '../world/story.ts'
import type { ForeignProgram } from './foreign-messages.ts'

export interface StrikeOptions {
  readonly scheduler: Scheduler
  readonly chance: Chance
  readonly story: Story
  readonly broker: Broker
  readonly databases: SimulatedDatabases
  readonly processes: Processes
  readonly freeze: (life: Life, durationMs: number) => Promise<void>
  readonly onLost: (messages: readonly LostMessage[]) => void
  readonly foreign: ForeignProgram
}

/** Applies a planned fault to the target that the fault's `draw` selects. */
export async function strike(at: StrikeOptions, planned: Planned): Promise<void> {
  const { scheduler, story, databases, processes } = at
  const { kind, durationMs, draw } = planned
  const slot = processes.slots[Math.floor(draw * processes.slots.length)]!
  const service = SERVICES[Math.floor(draw * SERVICES.length)]!
  const untilMs = scheduler.now() + durationMs
  const lasts = `for ${Math.round(durationMs)} ms`
  switch (kind) {
    case 'crash':
      if (slot.life) await processes.crash(slot.life, durationMs)
      return
    case 'freeze':
      if (slot.life) await at.freeze(slot.life, durationMs)
      return
    case 'hang':
      // Only if another process of the service can do the work: otherwise the run could not settle.
      if (slot.life && processes.hasTwin(slot.life)) {
        await at.freeze(slot.life, Number.POSITIVE_INFINITY)
      }
      return
    case 'clock jump': {
      const byMs = drawOffsetMs(at.chance)
      story.record(slot.service, slot.service, `the clock of ${slot.name} jumps by ${byMs} ms`)
      slot.clock.jump(byMs)
      return
    }
    case 'service down':
      story.record(service, service, `${service} is down ${lasts}`)
      await processes.keepDown(service, untilMs)
      return
    case 'database down':
      story.record(service, service, `the database of ${service} is down ${lasts}`)
      databases.down = { untilMs, services: new Set([service]) }
      return
    case 'conflicts':
      story.record(service, service, `transactions of ${service} conflict ${lasts}`)
      databases.conflicting = { untilMs, services: new Set([service]) }
      return
    case 'broker down':
    case 'broker slow':
    case 'rebalance':
    case 'rewind':
    case 'replay of the log':
    case 'loss of the log':
    case 'topic recreated':
    case 'foreign message':
      strikeBroker(at, { ...planned, kind })
  }
}

type BrokerKind = Exclude<
  PlannedKind,
  'crash' | 'freeze' | 'hang' | 'clock jump' | 'service down' | 'database down' | 'conflicts'
>

function strikeBroker(at: StrikeOptions, planned: Planned & { kind: BrokerKind }): void {
  const { scheduler, chance, story, broker } = at
  const { kind, durationMs, draw } = planned
  const groups = broker.groups()
  const group = groups[Math.floor(draw * groups.length)]
  const record = (text: string) => story.record('broker', 'broker', text)
  switch (kind) {
    case 'broker down':
      record(`down for ${Math.round(durationMs)} ms`)
      broker.downUntilMs = scheduler.now() + durationMs
      return broker.wake()
    case 'broker slow':
      record(`slow for ${Math.round(durationMs)} ms`)
      broker.slowUntilMs = scheduler.now() + durationMs
      return
    case 'rebalance':
      record(`${group} is rebalanced`)
      if (group) broker.rebalance(group, chance.shuffled)
      return
    case 'rewind':
      record(`${group} is rewound`)
      if (group) broker.rewind(group, 1 + chance.integer(5))
      return
    case 'replay of the log':
      record('all groups are rewound to the start')
      for (const one of groups) broker.rewind(one, Number.MAX_SAFE_INTEGER)
      return
    case 'loss of the log':
      record('the log is lost')
      return at.onLost(broker.recreate())
    case 'topic recreated':
      return recreate(at, draw)
    case 'foreign message':
      record('a foreign message is prepared')
      return at.foreign.prepare()
  }
}

const READ_TOPICS = ['billing', 'payment'] as const
const POLL_MS = 20
/** The operator stops waiting for a topic to be read after this many polls. */
const MAX_POLLS = 500

/** Recreates a topic, either at once or when all its messages have been read. */
function recreate(
  { scheduler, chance, story, broker, onLost, foreign }: StrikeOptions,
  draw: number,
) {
  const topic = READ_TOPICS[Math.floor(draw * READ_TOPICS.length)]!
  const waits = chance.happens(0.5)
  const poll = (polls: number): void => {
    if (waits && polls < MAX_POLLS && !broker.isTopicRead(topic)) {
      return void scheduler.after(POLL_MS, () => poll(polls + 1))
    }
    story.record('broker', 'broker', `topic ${topic} is recreated`)
    onLost(broker.recreate([topic]))
    foreign.repeat([topic])
  }
  poll(0)
}
