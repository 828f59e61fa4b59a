import type { Faults } from '../faults/faults.ts'
import type { Mishap, Step, StepKind } from '../faults/mishaps.ts'
import type { Chance, Chances } from './chance.ts'
import { type Life, laterIn, never } from './lives.ts'
import type { Scheduler } from './scheduler.ts'
import type { Story } from './story.ts'

/** Lets only one at a time through; the others wait until it opens, or for so long at most. */
export interface Gate {
  isOpen(): boolean
  wait(attempt: () => unknown): void
  readonly limitMs: number
  /** The error of a step that has waited for too long. */
  timeout(): Error
}

export interface Steps {
  /**
   * Does something to the world, later: the promise settles in an event of its own. `fault` makes
   * the error of a mishap.
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
  /** Whether steps of this kind are all slow now. */
  readonly isSlow: (kind: StepKind) => boolean
  /** Ends a life and what depends on it. */
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
        const answer = (settle: () => void) => {
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
            return answer(() => reject(fault(mishap)))
          }
          try {
            const result = await work()
            if (mishap === 'crash after') return await crash(life)
            if (mishap === 'freezes') {
              await freeze(life, luck.next() ** 2 * LONGEST_FREEZE_MS)
              return void soon(() => resolve(result))
            }
            answer(() => (mishap === 'unanswered' ? reject(fault(mishap)) : resolve(result)))
          } catch (error) {
            answer(() => reject(error))
          }
        }
        const soon = (run: () => unknown) => laterIn(life, scheduler, 0, run)
        laterIn(life, scheduler, beforeMs, attempt)
      })
    },
  }

  /** A slow step is slow on its way, or its answer is on the way back. */
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

/** So long a step takes half of the time; it may take almost nothing, and rarely much longer. */
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

/** Three times as long as a server lets a transaction idle. */
const LONGEST_FREEZE_MS = 30_000

/** A slow step takes up to so long: enough for everything else to come between it and the last. */
const SLOW_MS = 400

/** A long tail, so that any two things that run side by side may come in either order. */
function latencyMs(draw: number, kind: StepKind): number {
  return TYPICAL_MS[kind] * Math.min(draw / (1.0001 - draw), 50)
}
