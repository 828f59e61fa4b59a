import { setTimeout as sleep } from 'node:timers/promises'
import { type InteractionStyle, STYLE_HEADER } from '../../contracts/style.ts'

/** An HTTP client that measures how long each response takes. */
export interface Client {
  readonly baseUrl: string
  /** Rejects if the program cannot be reached or the demo is interrupted. */
  call(method: string, path: string, options?: CallOptions): Promise<DemoResponse>
  /** Reads repeatedly until the value is as expected or the wait ends. Resolves with the last value read. */
  until<Value>(read: () => Promise<Value>, isExpected: (value: Value) => boolean): Promise<Value>
}

export interface CallOptions {
  readonly style?: InteractionStyle
  readonly json?: unknown
  readonly headers?: Readonly<Record<string, string>>
  /** Whether the call goes on even if the demo is interrupted. */
  readonly uninterrupted?: boolean
}

export interface DemoResponse {
  readonly status: number
  /** The parsed JSON, or the text if it is not JSON. */
  readonly body: unknown
  /** The time from sending the request to the end of the response. */
  readonly durationMs: number
  /** When the response was complete, in epoch milliseconds. */
  readonly at: number
}

const CALL_TIMEOUT_MS = 30_000
const POLL_MS = 20

export function createClient(baseUrl: string, waitMs: number, interrupted: AbortSignal): Client {
  return {
    baseUrl,

    async call(method, path, { style, json, headers, uninterrupted } = {}) {
      const timeout = AbortSignal.timeout(CALL_TIMEOUT_MS)
      const startedMs = performance.now()
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
      const durationMs = performance.now() - startedMs
      return { status: response.status, body: parse(text), durationMs, at: Date.now() }
    },

    async until(read, isExpected) {
      const deadline = performance.now() + waitMs
      for (;;) {
        const value = await read()
        if (isExpected(value) || performance.now() >= deadline) return value
        await sleep(POLL_MS, undefined, { signal: interrupted })
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
