import type { Chances } from './chance.ts'
import type { Faults } from './faults.ts'
import { type Life, laterIn, never } from './lives.ts'
import type { Mishap, Step, StepKind } from './mishaps.ts'
import type { Scheduler } from './scheduler.ts'
import type { Story } from './story.ts'

/** Lets only one at a time through; the others wait until it opens. */
export interface Gate {
  isOpen(): boolean
  wait(attempt: () => unknown): void
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
  /** Ends a life and what depends on it. */
  readonly crash: (life: Life) => Promise<void> | void
}

export function createSteps(options: StepsOptions): Steps {
  const { scheduler, faults, chances, story, crash } = options
  return {
    perform(life, step, work, fault, gate) {
      if (!life.alive) return never()
      return new Promise((resolve, reject) => {
        async function attempt(): Promise<void> {
          if (gate && !gate.isOpen()) return gate.wait(() => soon(attempt))
          const mishap = faults.mishapAt(life, step)
          story.step(life, step, mishap)
          if (mishap === 'crash before') return crash(life)
          if (mishap === 'fails' || mishap === 'loses') return reject(fault(mishap))
          try {
            const result = await work()
            if (mishap === 'crash after') return await crash(life)
            if (mishap === 'unanswered') reject(fault(mishap))
            else resolve(result)
          } catch (error) {
            reject(error)
          }
        }
        const soon = (run: () => unknown) => laterIn(life, scheduler, 0, run)
        const luck = chances(`latency of ${life.name} ${step.kind}`)
        const isSlow = faults.happens('step slow', `${life.name} ${step.kind} ${step.label}`)
        const delayMs = latencyMs(luck.next(), step.kind) + (isSlow ? luck.next() * SLOW_MS : 0)
        laterIn(life, scheduler, delayMs, attempt)
      })
    },
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

/** A slow step takes up to so long: enough for everything else to come between it and the last. */
const SLOW_MS = 400

/** A long tail, so that any two things that run side by side may come in either order. */
function latencyMs(draw: number, kind: StepKind): number {
  return TYPICAL_MS[kind] * Math.min(draw / (1.0001 - draw), 50)
}
