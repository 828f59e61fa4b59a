/** Time and chance, handed to everything that needs them, so that a simulator can own both. */
export interface Runtime {
  /** Milliseconds since the epoch. */
  now(): number
  /** Resolves after so many milliseconds, or at once when the signal aborts; never rejects. */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>
  /** A UUIDv7: unique, and rising with time. */
  uuid(): string
  /** A number from 0 (included) to 1 (excluded), for jitter. */
  random(): number
}

export const systemRuntime: Runtime = {
  now: () => Date.now(),
  sleep: (durationMs, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) return resolve()
      const finish = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', finish)
        resolve()
      }
      const timer = setTimeout(finish, durationMs)
      signal?.addEventListener('abort', finish)
    }),
  uuid: () => uuidV7(Date.now(), crypto.getRandomValues(new Uint8Array(10))),
  random: () => Math.random(),
}

/** RFC 9562 version 7: 48 bits of milliseconds, then the version, the variant and 74 random bits. */
export function uuidV7(epochMs: number, random: Uint8Array): string {
  const time = epochMs.toString(16).padStart(12, '0')
  const tail = Array.from(random, (byte) => byte.toString(16).padStart(2, '0')).join('')
  const variant = ((random[2]! & 0x3f) | 0x80).toString(16)
  return `${time.slice(0, 8)}-${time.slice(8)}-7${tail.slice(1, 4)}-${variant}${tail.slice(6, 8)}-${tail.slice(8, 20)}`
}

/** Exponential backoff with jitter: between half and the whole of `baseMs * 2^attempt`, capped. */
export function backoffMs(attempt: number, baseMs: number, maxMs: number, random: number): number {
  const full = Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 20))
  return Math.ceil(full / 2 + (full / 2) * random)
}

/** Structured log lines: members first, then one plain sentence. pino fits it. */
export interface Log {
  debug(members: object, sentence: string): void
  info(members: object, sentence: string): void
  warn(members: object, sentence: string): void
  error(members: object, sentence: string): void
}
