/**
 * Simulated time. Everything that happens is an event at a certain time. The scheduler runs one event, waits
 * until all code that the event triggers immediately has come to rest, and then jumps to the time of the next
 * event. No code waits for a real clock.
 *
 * At rest means that no code of ours can run before another event happens. An event's consequences run in
 * microtasks, and the next tick comes only after the last of them. The exception is an injected HTTP request,
 * which needs ticks and turns of the event loop; so while requests are inside a service, the scheduler lets
 * the loop turn a few times.
 */
export interface Scheduler {
  /** Epoch milliseconds, with fractions. */
  now(): number
  /** Schedules `happen` after a delay; returns a function that cancels it. */
  after(delayMs: number, happen: () => unknown): () => void
  /** Marks a request as inside a service until the returned function is called. */
  enter(): () => void
  /** Runs events until `timeMs`, or until `isOver()` is true. */
  runUntil(timeMs: number, isOver?: () => boolean): Promise<void>
  /** How many events have happened. */
  happened(): number
}

interface Event {
  readonly timeMs: number
  /** Events with the same time happen in the order in which they were scheduled. */
  readonly place: number
  happen: (() => unknown) | undefined
}

/** An arbitrary fixed time that is easy to read in traces. */
export const START_MS = Date.UTC(2030, 0, 1)

export interface SchedulerOptions {
  /** Turns of the event loop after every event; by default the loop turns only while a request is in a service. */
  readonly turns?: number
}

/** An injected request needs two turns of the event loop: one to read its body and one to end. */
const TURNS = 3

export function createScheduler(options: SchedulerOptions = {}): Scheduler {
  const { turns = TURNS } = options
  const events = createHeap()
  let nowMs = START_MS
  let planned = 0
  let happened = 0
  let inside = 0

  async function rest(): Promise<void> {
    if (inside === 0 && options.turns === undefined) return tick()
    for (let n = 0; n < turns; n += 1) await turn()
  }

  return {
    now: () => nowMs,
    happened: () => happened,
    after(delayMs, happen) {
      const event: Event = { timeMs: nowMs + Math.max(0, delayMs), place: planned++, happen }
      events.push(event)
      return () => {
        event.happen = undefined
      }
    },
    enter() {
      inside += 1
      return () => {
        inside -= 1
      }
    },
    async runUntil(timeMs, isOver = () => false) {
      while (!isOver()) {
        const next = events.peek()
        if (next === undefined || next.timeMs > timeMs) {
          nowMs = Math.max(nowMs, timeMs)
          return
        }
        events.pop()
        if (next.happen === undefined) continue
        nowMs = next.timeMs
        happened += 1
        await next.happen()
        await rest()
      }
    },
  }
}

const tick = () => new Promise<void>((resolve) => process.nextTick(resolve))
const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** A binary heap with the earliest event on top. */
function createHeap() {
  const heap: Event[] = []
  const isBefore = (a: Event, b: Event) =>
    a.timeMs < b.timeMs || (a.timeMs === b.timeMs && a.place < b.place)

  function rise(from: number): void {
    for (let at = from; at > 0; ) {
      const parent = (at - 1) >> 1
      if (!isBefore(heap[at]!, heap[parent]!)) return
      swap(at, parent)
      at = parent
    }
  }

  function sink(): void {
    for (let at = 0; ; ) {
      const left = 2 * at + 1
      if (left >= heap.length) return
      const right = left + 1
      const child = right < heap.length && isBefore(heap[right]!, heap[left]!) ? right : left
      if (!isBefore(heap[child]!, heap[at]!)) return
      swap(at, child)
      at = child
    }
  }

  function swap(a: number, b: number): void {
    const moved = heap[a]!
    heap[a] = heap[b]!
    heap[b] = moved
  }

  return {
    peek: () => heap[0],
    push(event: Event): void {
      heap.push(event)
      rise(heap.length - 1)
    },
    pop(): void {
      const last = heap.pop()
      if (last === undefined || heap.length === 0) return
      heap[0] = last
      sink()
    },
  }
}
