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
  readonly alive: boolean
  /** Until this time it does not run, as a process that was stopped and not killed. */
  frozenUntilMs: number
  /** How far its clock is ahead of the true time; negative is behind. */
  readonly skewMs: number
  /** What others do when it ends: they notice that it is gone. */
  onEnd(notice: () => void): () => void
  end(): void
}

export function createLife(name: string, service: Life['service'], skewMs = 0): Life {
  const notices = new Set<() => void>()
  const life = {
    name,
    service,
    alive: true,
    frozenUntilMs: 0,
    skewMs,
    onEnd(notice: () => void) {
      notices.add(notice)
      return () => void notices.delete(notice)
    },
    end() {
      life.alive = false
      for (const notice of notices) notice()
      notices.clear()
    },
  }
  return life
}

/** Runs at a later time, unless the life is over by then, and not while it is frozen. */
export function laterIn(life: Life, scheduler: Scheduler, delayMs: number, run: () => unknown) {
  let callOff = () => {}
  const attempt = (): unknown => {
    if (!life.alive) return undefined
    const frozenMs = life.frozenUntilMs - scheduler.now()
    if (frozenMs <= 0) return run()
    callOff = scheduler.after(frozenMs, attempt)
    return undefined
  }
  callOff = scheduler.after(delayMs, attempt)
  return () => callOff()
}

/** What a dead process waits for. */
export const never = <T>() => new Promise<T>(() => {})
