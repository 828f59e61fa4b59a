import { type Clock, createClock } from './clocks.ts'
import type { Scheduler } from './scheduler.ts'

export const SERVICES = ['order', 'billing', 'notification'] as const

export type ServiceName = (typeof SERVICES)[number]

/**
 * One life of a process, from its start to its end. What it has in memory is gone with it: whatever
 * it asked of the world is never answered, and what it still asks is not done.
 */
export interface Life {
  /** `billing-1` */
  readonly name: string
  readonly service: ServiceName | 'customer'
  readonly clock: Clock
  readonly alive: boolean
  /** Stopped as by SIGSTOP: it keeps its memory and connections, and runs on when it is thawed. */
  readonly frozen: boolean
  freeze(): void
  thaw(): void
  /** Calls back once, when it is thawed; returns what calls that off. */
  onThaw(run: () => void): () => void
  /** What others do when it ends: they notice that it is gone. */
  onEnd(notice: () => void): () => void
  end(): void
}

export function createLife(
  name: string,
  service: Life['service'],
  clock: Clock = createClock(),
): Life {
  const notices = new Set<() => void>()
  const stopped = new Set<() => void>()
  const life = {
    ...{ name, service, clock },
    alive: true,
    frozen: false,
    freeze() {
      life.frozen = true
    },
    thaw() {
      life.frozen = false
      const all = [...stopped]
      stopped.clear()
      for (const run of all) run()
    },
    onThaw(run: () => void) {
      stopped.add(run)
      return () => void stopped.delete(run)
    },
    onEnd(notice: () => void) {
      notices.add(notice)
      return () => void notices.delete(notice)
    },
    end() {
      life.alive = false
      stopped.clear()
      for (const notice of notices) notice()
      notices.clear()
    },
  }
  return life
}

/** Runs at a later time, unless the life is over by then, and not while it is frozen. */
export function laterIn(life: Life, scheduler: Scheduler, delayMs: number, run: () => unknown) {
  let cancel = () => {}
  const begin = (afterMs: number) => {
    cancel = scheduler.after(afterMs, attempt)
  }
  const attempt = (): unknown => {
    if (!life.alive) return undefined
    if (!life.frozen) return run()
    cancel = life.onThaw(() => begin(0))
    return undefined
  }
  begin(delayMs)
  return () => cancel()
}

/** What a dead process waits for. */
export const never = <T>() => new Promise<T>(() => {})
