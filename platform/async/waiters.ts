import { type Runtime, WOKEN } from './runtime.ts'

/** Lets requests in this process wait, without polling, for a value that arrives under a key. */
export interface Waiters<Value> {
  /** Call this before triggering the event, so that the event cannot happen before the wait starts. */
  wait(key: string): Waiter<Value>
  /** Ends all waits for the key with this value. */
  resolve(key: string, value: Value): void
  /** The keys for which requests are currently waiting. */
  keys(): readonly string[]
}

export interface Waiter<Value> {
  /** Resolves with the value, or with undefined after `limitMs`. The wait is then over in either case. */
  within(limitMs: number): Promise<Value | undefined>
  cancel(): void
}

/**
 * The callbacks of the waits for one key. The array is emptied when the waits are over, because outdated hash
 * tables of a frequently changed Map still refer to it until they are collected.
 */
type Waiting<Value> = ((value: Value) => void)[]

export function createWaiters<Value>(runtime: Runtime): Waiters<Value> {
  const waiting = new Map<string, Waiting<Value>>()
  return {
    keys: () => [...waiting.keys()],
    wait(key) {
      const timeout = new AbortController()
      const { promise: value, resolve: settle } = Promise.withResolvers<Value>()
      const all = waiting.get(key) ?? []
      all.push(settle)
      waiting.set(key, all)
      const cancel = () => {
        timeout.abort(WOKEN)
        const place = all.indexOf(settle)
        if (place >= 0) all.splice(place, 1)
        if (all.length === 0 && waiting.get(key) === all) waiting.delete(key)
      }
      return {
        cancel,
        async within(limitMs) {
          const late = runtime.sleep(limitMs, timeout.signal).then(() => undefined)
          const first = await Promise.race([value, late])
          cancel()
          return first
        },
      }
    },
    resolve(key, value) {
      const all = waiting.get(key)
      if (all === undefined) return
      waiting.delete(key)
      for (const settle of all.splice(0)) settle(value)
    },
  }
}
