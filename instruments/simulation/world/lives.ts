import { type Clock, createClock } from './clocks.ts'
import type { Scheduler } from './scheduler.ts'

export const SERVICES = ['order', 'billing', 'notification'] as const

export type ServiceName = (typeof SERVICES)[number]

/**
 * One life of a process, from its start to its end. Its memory ends with it: operations that it is waiting
 * for never return, and operations that its code still starts have no effect.
 */
export interface Life {
  /** `billing-1` */
  readonly name: string
  readonly service: ServiceName | 'customer'
  readonly clock: Clock
  readonly alive: boolean
  /**
   * Stopped as if by SIGSTOP: the process keeps its memory and connections, and continues when it is thawed.
   */
  readonly frozen: boolean
  freeze(): void
  thaw(): void
  /** Calls `run` once, at the next thaw; returns a function that cancels this. */
  onThaw(run: () => void): () => void
  /** Calls `notice` when the life ends; returns a function that cancels this. */
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
    name,
    service,
    clock,
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

/**
 * Calls a function in a life after a delay: not at all if the life has ended by then, and after the thaw if
 * it is frozen. Returns a function that cancels the call.
 */
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

/** A promise that never settles; every operation of a dead process returns it. */
export const never = <T>() => new Promise<T>(() => {})
