/**
 * One kind of work in a service: how much of it is in flight, and whether there is room for more. While work
 * finishes in time, all of it is admitted. Once work is late, only as much is admitted as can finish in
 * TARGET_MS at the rate of the last second (Little's law), until nothing has been rejected for a second. Even
 * while clients send more than the service can handle, the queue stays short, and admitted work finishes
 * soon.
 */
export interface Workload {
  hasRoom(): boolean
  /** Records that a piece of work is in flight. Call `end` on the result when the work has ended. */
  begin(): Work
}

export interface Work {
  /** Only the first call has an effect. Abandoned work does not count toward the rate. */
  end(outcome: 'done' | 'abandoned'): void
}

/** The target time, in milliseconds, for admitted work while clients send more than the service can handle. */
const TARGET_MS = 150
/** Work is late if, at the current rate, the last piece in flight would finish after this time. */
const LATE_MS = 1_000
/**
 * This much work is always admitted, because with less in flight, batches would be too small to be efficient.
 */
const MIN_IN_FLIGHT = 64
/** As long as the rate is unknown, this number of pieces of work is admitted. */
const BURST = 512
const RECOVERED_AFTER_MS = 1_000
/** The rate is measured over the current window and the one before it. */
const WINDOW_MS = 500

/**
 * `clock` returns monotonic milliseconds. If `max` is given, the number of pieces in flight is limited
 * instead of the time that they take.
 */
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
