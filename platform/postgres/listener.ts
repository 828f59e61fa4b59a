import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'
import { backoffMs } from '../async/runtime.ts'

/** Receives PostgreSQL's notifications over a separate connection, which is reopened when it breaks. */
export interface Listener {
  listen(channel: string, onNotify: () => void): () => void
  close(): Promise<void>
}

export interface ListenerOptions {
  readonly url: string
  readonly connectTimeoutMs: number
  readonly onError: (error: Error) => void
}

/** Keep-alive packets detect that the other end is gone even if the connection is idle. */
export const KEEP_ALIVE = { keepAlive: true, keepAliveInitialDelayMillis: 10_000 }

const RECONNECT_BASE_MS = 200
const RECONNECT_MAX_MS = 5_000
const LEAVE_LIMIT_MS = 1_000

/** Creates a listener, which connects when `listen` is first called. */
export function createListener(options: ListenerOptions): Listener {
  const callbacks = new Map<string, Set<() => void>>()
  let closed = false
  let client: Client | undefined
  /** The client, as soon as it listens on every channel that was requested while it was connecting. */
  let ready: Client | undefined
  let retry: NodeJS.Timeout | undefined
  let failures = 0

  const callAll = () => {
    for (const channel of callbacks.values()) for (const callback of channel) callback()
  }

  async function connect(): Promise<void> {
    let next: Client | undefined
    try {
      // This throws if the driver cannot read a file that the URL names, such as a certificate.
      next = createClient()
      client = next
      await next.connect()
      // This loop also reaches channels that are added while it runs, because a Map appends them.
      for (const channel of callbacks.keys()) await next.query(`listen ${quoted(channel)}`)
      ready = next
      failures = 0
      // PostgreSQL does not repeat notifications that were sent while no client was listening, so every
      // listener is called.
      callAll()
    } catch (error) {
      lost(next, error as Error)
    }
  }

  function createClient(): Client {
    const next = new Client({
      connectionString: options.url,
      connectionTimeoutMillis: options.connectTimeoutMs,
      ...KEEP_ALIVE,
      application_name: 'trifold-listener',
    })
    next.on('notification', ({ channel }) => {
      for (const callback of callbacks.get(channel) ?? []) callback()
    })
    next.on('error', (error) => lost(next, error))
    next.on('end', () => lost(next, new Error('the connection ended')))
    return next
  }

  function lost(broken: Client | undefined, error: Error): void {
    if (closed || client !== broken) return
    client = undefined
    ready = undefined
    options.onError(error)
    broken?.end().catch(() => undefined)
    const waitMs = backoffMs(failures, RECONNECT_BASE_MS, RECONNECT_MAX_MS, Math.random())
    failures += 1
    retry = setTimeout(() => {
      retry = undefined
      void connect()
    }, waitMs)
  }

  return {
    listen(channel, onNotify) {
      const others = callbacks.get(channel)
      callbacks.set(channel, (others ?? new Set()).add(onNotify))
      if (client === undefined && retry === undefined) void connect()
      else if (!others) ready?.query(`listen ${quoted(channel)}`).catch(() => undefined)
      return () => {
        callbacks.get(channel)?.delete(onNotify)
      }
    },
    async close() {
      closed = true
      clearTimeout(retry)
      // A frozen server does not respond when a connection is closed, so the wait is limited.
      const limit = new AbortController()
      const left = client?.end().catch(() => undefined)
      await Promise.race([left, sleep(LEAVE_LIMIT_MS, undefined, limit).catch(() => undefined)])
      limit.abort()
    },
  }
}

const quoted = (channel: string) => `"${channel.replaceAll('"', '""')}"`
