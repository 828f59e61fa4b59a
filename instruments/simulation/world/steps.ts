import type { Faults } from '../faults/faults.ts'
import type { Mishap, Step, StepKind } from '../faults/mishaps.ts'
import type { Chance, Chances } from './chance.ts'
import { type Life, laterIn, never } from './lives.ts'
import type { Scheduler } from './scheduler.ts'
import type { Story } from './story.ts'

/** Lets a step through when it is open; other steps wait until it opens, for `limitMs` at most. */
export interface Gate {
  isOpen(): boolean
  wait(attempt: () => unknown): void
  readonly limitMs: number
  /** The error of a step that waited for `limitMs`. */
  timeout(): Error
}

export interface Steps {
  /**
   * Performs an operation on the outside world after a delay; the promise settles in a separate event.
   * `fault` creates the error for a mishap.
   */
  perform<T>(
    life: Life,
    step: Step,
    work: () => T | Promise<T>,
    fault: (mishap: Mishap) => Error,
    gate?: Gate,
  ): Promise<T>
}

export interface StepsOptions {
  readonly scheduler: Scheduler
  readonly faults: Faults
  readonly chances: Chances
  readonly story: Story
  /** Whether all steps of this kind are slow at present. */
  readonly isSlow: (kind: StepKind) => boolean
  /** Ends a life. */
  readonly crash: (life: Life) => Promise<void> | void
  readonly freeze: (life: Life, durationMs: number) => Promise<void>
}

export function createSteps(options: StepsOptions): Steps {
  const { scheduler, faults, chances, story, crash, freeze } = options
  return {
    perform(life, step, work, fault, gate) {
      if (!life.alive) return never()
      const luck = chances(`latency of ${life.name} ${step.kind}`)
      const { beforeMs, afterMs } = delaysOf(life, step, luck)
      return new Promise((resolve, reject) => {
        const finish = (settle: () => void) => {
          if (afterMs === 0) settle()
          else laterIn(life, scheduler, afterMs, settle)
        }
        let limit: (() => void) | undefined
        let isLate = false
        const giveUp = (error: Error) => {
          isLate = true
          reject(error)
        }
        async function attempt(): Promise<void> {
          if (isLate) return
          if (gate && !gate.isOpen()) {
            if (Number.isFinite(gate.limitMs))
              limit ??= laterIn(life, scheduler, gate.limitMs, () => giveUp(gate.timeout()))
            return gate.wait(() => soon(attempt))
          }
          limit?.()
          const mishap = faults.mishapAt(life, step)
          story.step(life, step, mishap)
          if (mishap === 'crash before') return crash(life)
          if (mishap === 'fails' || mishap === 'loses') {
            return finish(() => reject(fault(mishap)))
          }
          try {
            const result = await work()
            if (mishap === 'crash after') return await crash(life)
            if (mishap === 'freezes') {
              await freeze(life, luck.next() ** 2 * LONGEST_FREEZE_MS)
              return void soon(() => resolve(result))
            }
            finish(() => (mishap === 'unanswered' ? reject(fault(mishap)) : resolve(result)))
          } catch (error) {
            finish(() => reject(error))
          }
        }
        const soon = (run: () => unknown) => laterIn(life, scheduler, 0, run)
        laterIn(life, scheduler, beforeMs, attempt)
      })
    },
  }

  /** A slow step is delayed either before its effect or between its effect and its result. */
  function delaysOf(life: Life, { kind, label }: Step, luck: Chance) {
    const beforeMs = latencyMs(luck.next(), kind)
    const isSlow =
      faults.happens('step slow', `${life.name} ${kind} ${label}`) || options.isSlow(kind)
    if (!isSlow) return { beforeMs, afterMs: 0 }
    const slowMs = luck.next() * SLOW_MS
    return luck.happens(0.5)
      ? { beforeMs: beforeMs + slowMs, afterMs: 0 }
      : { beforeMs, afterMs: slowMs }
  }
}

/** The median duration of a step. A step can take almost no time, and occasionally takes much longer. */
const TYPICAL_MS: Readonly<Record<StepKind, number>> = {
  statement: 0.3,
  commit: 1,
  signal: 1,
  subscribe: 3,
  send: 2,
  take: 2,
  offsets: 2,
  ping: 1,
  call: 1,
  letter: 5,
}

/** Three times as long as the server lets a transaction idle. */
const LONGEST_FREEZE_MS = 30_000

/** The longest extra delay of a slow step: long enough for other work to happen in the meantime. */
const SLOW_MS = 400

/** Latencies have a long tail, so that two concurrent steps can happen in either order. */
function latencyMs(draw: number, kind: StepKind): number {
  return TYPICAL_MS[kind] * Math.min(draw / (1.0001 - draw), 50)
}
