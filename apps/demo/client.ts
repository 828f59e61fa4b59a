import { setTimeout as sleep } from 'node:timers/promises'
import { type InteractionStyle, STYLE_HEADER } from '../../contracts/style.ts'

/** HTTP as a customer's program would speak it, with a clock in its hand. */
export interface Client {
  readonly baseUrl: string
  /** Rejects when the program cannot be reached, or when the demo is interrupted. */
  call(method: string, path: string, options?: CallOptions): Promise<Answer>
  /** Reads until it is so, or until the wait is over; resolves to what was read last. */
  until<Value>(read: () => Promise<Value>, isSo: (value: Value) => boolean): Promise<Value>
}

export interface CallOptions {
  readonly style?: InteractionStyle
  readonly json?: unknown
  readonly headers?: Readonly<Record<string, string>>
  /** A call that must not be cut off by an interruption. */
  readonly uninterrupted?: boolean
}

export interface Answer {
  readonly status: number
  /** JSON as it was read; text where it is none. */
  readonly body: unknown
  /** From the request to the whole answer. */
  readonly durationMs: number
  /** When the answer was complete, in epoch milliseconds. */
  readonly at: number
}

const CALL_TIMEOUT_MS = 30_000
const LOOK_AGAIN_MS = 20

export function createClient(baseUrl: string, waitMs: number, interrupted: AbortSignal): Client {
  return {
    baseUrl,

    async call(method, path, { style, json, headers, uninterrupted } = {}) {
      const timeout = AbortSignal.timeout(CALL_TIMEOUT_MS)
      const begun = performance.now()
      const response = await fetch(`${baseUrl}${path}`, {
        method,
        headers: {
          ...headers,
          ...(style && { [STYLE_HEADER]: style }),
          ...(json !== undefined && { 'content-type': 'application/json' }),
        },
        ...(json !== undefined && { body: JSON.stringify(json) }),
        signal: uninterrupted ? timeout : AbortSignal.any([timeout, interrupted]),
      })
      const text = await response.text()
      const durationMs = performance.now() - begun
      return { status: response.status, body: parse(text), durationMs, at: Date.now() }
    },

    async until(read, isSo) {
      const deadline = performance.now() + waitMs
      for (;;) {
        const value = await read()
        if (isSo(value) || performance.now() >= deadline) return value
        await sleep(LOOK_AGAIN_MS, undefined, { signal: interrupted })
      }
    },
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
