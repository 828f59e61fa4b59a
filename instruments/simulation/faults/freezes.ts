import type { Life, ServiceName } from '../world/lives.ts'
import type { Scheduler } from '../world/scheduler.ts'
import type { Story } from '../world/story.ts'

/** Freezes processes like SIGSTOP and thaws them like SIGCONT. */
export interface Freezer {
  freeze(life: Life, durationMs: number): Promise<void>
  /** Thaws the frozen processes that `matches` selects; returns whether there were any. */
  thaw(matches: (life: Life) => boolean): boolean
}

export interface FreezerOptions {
  readonly scheduler: Scheduler
  readonly story: Story
  /** Notifies the servers that the process is connected to. */
  readonly onFreeze: (life: Life, durationMs: number) => Promise<void>
}

export function createFreezer({ scheduler, story, onFreeze }: FreezerOptions): Freezer {
  const frozen = new Set<Life>()

  function thaw(life: Life): void {
    if (!frozen.delete(life) || !life.alive) return
    record(life, 'is thawed')
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
    thaw(matches) {
      const meant = [...frozen].filter((life) => life.alive && matches(life))
      for (const life of meant) thaw(life)
      return meant.length > 0
    },
  }
}
