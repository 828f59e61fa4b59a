/**
 * One kind of work of a service: how much of it is in flight, and whether there is room for more. While
 * the work gets done in time, everything is admitted. Once it doesn't, only as much is admitted as gets done
 * in TARGET_MS at the rate measured just now (Little's law), until nothing has been rejected for a second.
 * So the queue stays short while clients send more than can be served, and what is served is served soon.
 */
export interface Workload {
  hasRoom(): boolean
  /** Counts one piece of work as in flight until it ends. */
  begin(): Work
}

export interface Work {
  /** Further calls have no effect. Work that was abandoned doesn't count toward the rate. */
  end(outcome: 'done' | 'abandoned'): void
}

/** How long an admitted piece of work should take while there is more than can be served. */
const TARGET_MS = 150
/** Work is late if, at the present rate, the last of it would take this long to finish. */
const LATE_MS = 1_000
/** So much is always admitted: with less in flight, batches are too small to be efficient. */
const MIN_IN_FLIGHT = 64
/** A burst this large is admitted before anything is known about the rate. */
const BURST = 512
const RECOVERED_AFTER_MS = 1_000
/** The rate is measured over the present window and the one before it. */
const WINDOW_MS = 500

/** `clock` returns milliseconds that only rise; `max` bounds the work in flight whatever the rate. */
export function createWorkload(clock: () => number, max = Number.POSITIVE_INFINITY): Workload {
  const isTimed = max === Number.POSITIVE_INFINITY
  let inFlight = 0
  /** The sum of the times at which the work in flight began. */
  let begunMs = 0
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

  function fallsBehind(nowMs: number): boolean {
    const averageAgeMs = nowMs - begunMs / inFlight
    // In a queue that is served in order, the oldest is twice as old as the average.
    if (averageAgeMs > LATE_MS / 2) return true
    return inFlight > BURST && inFlight * 1_000 > perSecond(nowMs) * LATE_MS
  }

  return {
    hasRoom() {
      if (!isTimed) return inFlight < max
      if (inFlight < MIN_IN_FLIGHT) return true
      const nowMs = clock()
      if (isLate) isLate = nowMs - rejectedMs < RECOVERED_AFTER_MS
      isLate ||= fallsBehind(nowMs)
      if (!isLate || inFlight * 1_000 < perSecond(nowMs) * TARGET_MS) return true
      rejectedMs = nowMs
      return false
    },

    begin() {
      const startMs = clock()
      let hasEnded = false
      inFlight += 1
      begunMs += startMs
      return {
        end(outcome) {
          if (hasEnded) return
          hasEnded = true
          inFlight -= 1
          begunMs = inFlight === 0 ? 0 : begunMs - startMs
          if (outcome === 'abandoned') return
          perSecond(clock())
          doneNow += 1
        },
      }
    },
  }
}
