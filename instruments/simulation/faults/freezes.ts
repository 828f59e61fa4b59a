import type { Life, ServiceName } from '../world/lives.ts'
import type { Scheduler } from '../world/scheduler.ts'
import type { Story } from '../world/story.ts'

/** Stops processes as SIGSTOP does, and lets them run on as SIGCONT does. */
export interface Freezer {
  freeze(life: Life, durationMs: number): Promise<void>
  /** Lets those of the frozen processes run on; returns whether there were any. */
  thaw(isMeant: (life: Life) => boolean): boolean
}

export interface FreezerOptions {
  readonly scheduler: Scheduler
  readonly story: Story
  /** Tells the servers that a process is connected to. */
  readonly onFreeze: (life: Life, durationMs: number) => Promise<void>
}

export function createFreezer({ scheduler, story, onFreeze }: FreezerOptions): Freezer {
  const frozen = new Set<Life>()

  function thaw(life: Life): void {
    if (!frozen.delete(life) || !life.alive) return
    record(life, 'runs on')
    life.thaw()
  }

  function record({ service, name }: Life, what: string): void {
    story.record(service as ServiceName, service as ServiceName, `${name} ${what}`)
  }

  return {
    async freeze(life, durationMs) {
      if (!life.alive || life.frozen) return
      record(life, `freezes for ${Math.round(durationMs)} ms`)
      life.freeze()
      frozen.add(life)
      scheduler.after(durationMs, () => thaw(life))
      await onFreeze(life, durationMs)
    },
    thaw(isMeant) {
      const meant = [...frozen].filter((life) => life.alive && isMeant(life))
      for (const life of meant) thaw(life)
      return meant.length > 0
    },
  }
}
