/**
 * One kind of work of a service: how much of it is in flight, and whether there is room for more. While work
 * finishes in time, all of it is admitted. When it no longer does, only as much is admitted as finishes in TARGET_MS
 * at the rate of the last second (Little's law), until nothing has been rejected for a second. So the queue stays
 * short while clients send more than the service can handle, and admitted work finishes soon.
 */
export interface Workload {
  hasRoom(): boolean
  /** Counts one piece of work as in flight until it ends. */
  begin(): Work
}

export interface Work {
  /** Only the first call has an effect. Abandoned work doesn't count toward the rate. */
  end(outcome: 'done' | 'abandoned'): void
}

/** How long admitted work should take while clients send more than the service can handle. */
const TARGET_MS = 150
/** Work is late if, at the present rate, the last of it would finish after this time. */
const LATE_MS = 1_000
/** This much is always admitted, because with less in flight batches are too small to be efficient. */
const MIN_IN_FLIGHT = 64
/** A burst of this size is admitted while the rate is still unknown. */
const BURST = 512
const RECOVERED_AFTER_MS = 1_000
/** The rate is measured over the current window and the one before it. */
const WINDOW_MS = 500

/** `clock` returns monotonic milliseconds. `max` limits the work in flight by its number instead of its rate. */
export function createWorkload(clock: () => number, max = Number.POSITIVE_INFINITY): Workload {
  const isTimed = max === Number.POSITIVE_INFINITY
  let inFlight = 0
  /** The sum of the start times of the work in flight. */
  let startSumMs = 0
  let isLate = false
  let rejectedMs = 0
  let windowMs = clock()
  let doneBefore = 0
  let doneNow = 0

  function perSecond(nowMs: number): number {
    const elapsedMs = nowMs - windowMs
    if (elapsedMs >= WINDOW_MS) {
      doneBefore = elapsedMs < 2 * WINDOW_MS ? doneNow : 0
      doneNow = 0
      windowMs = nowMs
    }
    return ((doneBefore + doneNow) * 1_000) / (WINDOW_MS + nowMs - windowMs)
  }

  function isBehind(nowMs: number): boolean {
    const averageAgeMs = nowMs - startSumMs / inFlight
    // In a queue that is served in order, the oldest item is twice as old as the average.
    if (averageAgeMs > LATE_MS / 2) return true
    return inFlight > BURST && inFlight * 1_000 > perSecond(nowMs) * LATE_MS
  }

  return {
    hasRoom() {
      if (!isTimed) return inFlight < max
      if (inFlight < MIN_IN_FLIGHT) return true
      const nowMs = clock()
      if (isLate) isLate = nowMs - rejectedMs < RECOVERED_AFTER_MS
      isLate ||= isBehind(nowMs)
      if (!isLate || inFlight * 1_000 < perSecond(nowMs) * TARGET_MS) return true
      rejectedMs = nowMs
      return false
    },

    begin() {
      const startMs = clock()
      let hasEnded = false
      inFlight += 1
      startSumMs += startMs
      return {
        end(outcome) {
          if (hasEnded) return
          hasEnded = true
          inFlight -= 1
          startSumMs = inFlight === 0 ? 0 : startSumMs - startMs
          if (outcome === 'abandoned') return
          perSecond(clock())
          doneNow += 1
        },
      }
    },
  }
}
