/**
 * The sources of time and randomness. They are passed to all code that needs them, so that the simulator can
 * control both.
 */
export interface Runtime {
  /**
   * Milliseconds since the epoch by this machine's clock, which may be wrong and may jump. Never
   * compare it with a time that another process wrote: SQL does that, with the database's `now()`.
   */
  now(): number
  /** Milliseconds since a fixed moment, by a clock that never jumps. Use it for durations within this process. */
  monotonic(): number
  /**
   * Resolves after `durationMs` or 24 days, whichever is shorter, or at once when the signal aborts. Callers
   * check their condition again after a sleep, so the limit does not affect them. Never rejects.
   */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>
  /** Resolves after all data that sockets have received by now has been read and handled. */
  turn(): Promise<void>
  /** Returns a UUIDv7, which is unique and ascends with time. */
  uuid(): string
  /** Returns a number from 0 (included) to 1 (excluded), for jitter. */
  random(): number
}

/**
 * The random bytes in one UUID, and how many bytes are drawn at once. Drawing a few bytes costs as much as
 * drawing many.
 */
const UUID_BYTES = 10
const POOL_BYTES = 128 * UUID_BYTES

const AT_ONCE = Promise.resolve()

/** The longest delay of a Node timer. A timer with a longer delay fires after 1 ms. */
const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * One sleep. The class uses no closures, because V8 keeps everything that a promise's closures refer to until
 * its next major garbage collection.
 */
class Sleep {
  readonly over: Promise<void>
  readonly #wake: () => void
  readonly #signal: AbortSignal | undefined
  timer: NodeJS.Timeout | undefined

  constructor(signal?: AbortSignal) {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.over = promise
    this.#wake = resolve
    this.#signal = signal
    signal?.addEventListener('abort', this)
  }

  handleEvent(): void {
    clearTimeout(this.timer)
    this.#signal?.removeEventListener('abort', this)
    this.#wake()
  }
}

const endSleep = (sleep: Sleep) => sleep.handleEvent()

export const systemRuntime: Runtime = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep(durationMs, signal) {
    if (signal?.aborted) return AT_ONCE
    const sleep = new Sleep(signal)
    sleep.timer = setTimeout(endSleep, Math.min(durationMs, MAX_TIMER_MS), sleep)
    return sleep.over
  },
  turn: () => new Promise((resolve) => setImmediate(resolve)),
  uuid: createUuids(
    () => Date.now(),
    (bytes) => crypto.getRandomValues(bytes),
  ),
  random: () => Math.random(),
}

/**
 * The reason to pass to `abort` to end a sleep. Without a reason, `abort` creates an error with a stack each
 * time, which costs more than the sleep.
 */
export const WOKEN = 'woken'

function createUuids(
  now: () => number,
  fill: (bytes: Uint8Array<ArrayBuffer>) => void,
): () => string {
  const pool = new Uint8Array(POOL_BYTES)
  let drawn = POOL_BYTES
  return () => {
    if (drawn === POOL_BYTES) {
      fill(pool)
      drawn = 0
    }
    drawn += UUID_BYTES
    return uuidV7(now(), pool.subarray(drawn - UUID_BYTES, drawn))
  }
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/** RFC 9562 version 7: 48 bits of milliseconds, then the version, the variant and 74 random bits. */
export function uuidV7(epochMs: number, random: Uint8Array): string {
  const time = epochMs.toString(16).padStart(12, '0')
  let tail = ''
  for (const byte of random) tail += HEX[byte]
  const variant = ((random[2]! & 0x3f) | 0x80).toString(16)
  return `${time.slice(0, 8)}-${time.slice(8)}-7${tail.slice(1, 4)}-${variant}${tail.slice(6, 8)}-${tail.slice(8, 20)}`
}

/** Exponential backoff with jitter: between half of `baseMs * 2^attempt` and all of it, at most `maxMs`. */
export function backoffMs(attempt: number, baseMs: number, maxMs: number, random: number): number {
  const full = Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 20))
  return Math.ceil(full / 2 + (full / 2) * random)
}

/**
 * Writes structured log lines: first the members, then a short fact. A pino logger implements this interface.
 */
export interface Log {
  debug(members: object, sentence: string): void
  info(members: object, sentence: string): void
  warn(members: object, sentence: string): void
  error(members: object, sentence: string): void
}
