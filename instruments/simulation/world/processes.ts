import type { ServiceParts } from '../../../chassis/service.ts'
import type { Chances } from './chance.ts'
import { type Clock, type ClockQuality, drawClock } from './clocks.ts'
import { createService, type Deployment } from './deployment.ts'
import { createLife, type Life, SERVICES, type ServiceName } from './lives.ts'
import type { Scheduler } from './scheduler.ts'
import type { Story } from './story.ts'

/** The processes of a run, which start, die, stay down for a while and restart. */
export interface Processes {
  readonly slots: readonly Slot[]
  /** Ends a life; its process restarts after `downMs`, which is drawn if absent. */
  crash(life: Life, downMs?: number): Promise<void>
  /** Ends a life from within: it ends at once, and its clean-up and restart follow in a later event. */
  kill(life: Life): void
  /** Whether another process of the same service is running and not frozen. */
  hasTwin(life: Life): boolean
  /** Ends all processes of a service; they restart at that time. */
  keepDown(service: ServiceName, untilMs: number): Promise<void>
}

/** One process through all its lives. */
export interface Slot {
  readonly name: string
  readonly service: ServiceName
  readonly clock: Clock
  readonly life: Life | undefined
}

interface OpenSlot extends Slot {
  life: Life | undefined
  startsAtMs: number
}

export interface ProcessesOptions {
  readonly scheduler: Scheduler
  readonly chances: Chances
  readonly story: Story
  readonly deployment: Deployment
  readonly clocks: ClockQuality
  /** Creates the parts of a life's service. */
  readonly partsOf: (life: Life) => ServiceParts
  readonly letterOf: (life: Life) => Parameters<typeof createService>[3]
  /** Called when a service is ready to serve requests. */
  readonly onStart: (life: Life, app: Awaited<ReturnType<typeof createService>>['app']) => void
  /** Called when a life has ended, before anything else happens. */
  readonly onEnd: (life: Life) => Promise<void>
}

const SLOWEST_RESTART_MS = 1_500
const FIRST_START_MS = 50

export function startProcesses(options: ProcessesOptions): Processes {
  const { scheduler, chances, story, deployment } = options
  const chance = chances('processes')
  const slots = drawSlots(deployment.instances, () =>
    drawClock(options.clocks, chance, scheduler.now()),
  )
  for (const slot of slots) scheduler.after(chance.next() * FIRST_START_MS, () => start(slot))

  async function start(slot: OpenSlot): Promise<void> {
    if (slot.life?.alive) return
    const waitMs = slot.startsAtMs - scheduler.now()
    if (waitMs > 0) return void scheduler.after(waitMs, () => start(slot))
    const life = createLife(slot.name, slot.service, slot.clock)
    slot.life = life
    const ended = new Promise<undefined>((resolve) => life.onEnd(() => resolve(undefined)))
    const started = await Promise.race([
      createService(
        slot.service,
        options.partsOf(life),
        deployment.settings,
        options.letterOf(life),
      ),
      ended,
    ])
    if (started === undefined || !life.alive) return
    options.onStart(life, started.app)
    story.record(slot.service, slot.service, `${slot.name} runs`)
  }

  async function crash(life: Life, downMs?: number): Promise<void> {
    if (!life.alive) return
    end(life)
    await restart(life, downMs)
  }

  function end(life: Life): void {
    story.record(life.service as ServiceName, life.service as ServiceName, `${life.name} dies`)
    life.end()
  }

  async function restart(
    life: Life,
    downMs = chance.next() ** 2 * SLOWEST_RESTART_MS,
  ): Promise<void> {
    const slot = slots.find((one) => one.life === life)!
    await options.onEnd(life)
    slot.startsAtMs = Math.max(slot.startsAtMs, scheduler.now() + downMs)
    scheduler.after(slot.startsAtMs - scheduler.now(), () => start(slot))
  }

  return {
    slots,
    crash,
    kill(life) {
      if (!life.alive) return
      end(life)
      scheduler.after(0, () => restart(life))
    },
    hasTwin: (life) =>
      slots.some(
        (slot) =>
          slot.service === life.service &&
          slot.life !== life &&
          slot.life?.alive === true &&
          !slot.life.frozen,
      ),
    async keepDown(service, untilMs) {
      for (const slot of slots) {
        if (slot.service !== service) continue
        slot.startsAtMs = untilMs
        if (slot.life) await crash(slot.life, 0)
      }
    },
  }
}

function drawSlots(instances: number, newClock: () => Clock): OpenSlot[] {
  return SERVICES.flatMap((service) =>
    Array.from({ length: instances }, (_, n) => ({
      name: `${service}-${n + 1}`,
      service,
      clock: newClock(),
      life: undefined,
      startsAtMs: 0,
    })),
  )
}
