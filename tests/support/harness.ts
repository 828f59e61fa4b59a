import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { measured, type Service } from '../../chassis/service.ts'
import type { Bus, BusMessage } from '../../messaging/bus.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { type Runtime, systemRuntime } from '../../platform/async/runtime.ts'
import { createHttpClient } from '../../platform/http/client.ts'
import { createLog, createTelemetry } from '../../platform/telemetry/telemetry.ts'
import { openTestBroker, openTestDatabase, type TestDatabase } from './backends.ts'

/**
 * The parts that component tests need: a service's real parts (its own database and broker, the pooled HTTP
 * client), a clock that the test can advance, and a fake of the other services that listens on a real port.
 */
export async function openParts(service: string) {
  const database = await openTestDatabase()
  const clock = createClock({ database })
  const broker = await openTestBroker({ database, runtime: clock.runtime, topics: TOPICS })
  const bus = await broker.open()
  const http = createHttpClient()
  const parts = measured({
    database,
    bus,
    http: http.call,
    runtime: clock.runtime,
    log: createLog('silent', service),
    telemetry: createTelemetry(service),
    soleProcess: true,
    server: {
      basePath: '/otusapp/gur-ok',
      bodyLimitBytes: 65_536,
      rateLimitPerMinute: 0,
    },
  })
  return {
    parts,
    clock,
    async close() {
      await http.close()
      await broker.close()
      await database.close()
    },
  }
}

export interface ClockOptions {
  /** Time passes only through `advance`, so that waiting alone triggers nothing. */
  readonly frozen?: boolean
  /** This database follows the clock as well, until another clock is created for it. */
  readonly database?: TestDatabase
}

/** The time of day plus all advances. `advance` wakes all sleepers that are due. */
export function createClock(options: ClockOptions = {}) {
  const start = Date.now()
  let aheadMs = 0
  const sleepers = new Set<{ dueMs: number; wake: AbortController }>()
  const now = () => (options.frozen ? start : Date.now()) + aheadMs
  options.database?.useClock({ now, isFrozen: options.frozen ?? false })
  const runtime: Runtime = {
    ...systemRuntime,
    now,
    monotonic: now,
    async sleep(durationMs, signal) {
      const sleeper = { dueMs: now() + durationMs, wake: new AbortController() }
      sleepers.add(sleeper)
      const either = signal ? AbortSignal.any([signal, sleeper.wake.signal]) : sleeper.wake.signal
      await systemRuntime.sleep(options.frozen ? LONGEST_SLEEP_MS : durationMs, either)
      sleepers.delete(sleeper)
    },
  }
  return {
    runtime,
    /** Whether a sleep of this duration started at the current time. For a frozen clock. */
    isSleepingFor: (durationMs: number) =>
      [...sleepers].some(({ dueMs }) => dueMs === now() + durationMs),
    /** The number of sleeps that are not due yet. */
    sleeperCount: () => [...sleepers].filter(({ dueMs }) => dueMs > now()).length,
    advance(byMs: number) {
      aheadMs += byMs
      for (const { dueMs, wake } of sleepers) if (dueMs <= now()) wake.abort()
    },
  }
}

/** The longest delay that a timer supports. */
const LONGEST_SLEEP_MS = 2 ** 31 - 1

export interface WireMessage {
  readonly topic: string
  readonly key: string | null
  readonly headers: Readonly<Record<string, string>>
  readonly body: Record<string, unknown>
  /** The exact text of the body, as a foreign reader gets it. */
  readonly text: string
}

/** Records all messages on the topics, as a foreign program reads them. */
export async function readTopics(bus: Bus, topics: readonly string[]) {
  const subscription = await bus.subscribe('observer', topics)
  const messages: WireMessage[] = []
  async function run(): Promise<void> {
    for (;;) {
      const batches = await subscription.take()
      if (batches.length === 0) return
      for (const batch of batches) messages.push(...batch.messages.map(toWire))
      await subscription.commit(batches)
    }
  }
  const running = run()
  return {
    messages,
    /** The messages of one key, in the order in which they were sent. */
    of: (key: string) => messages.filter((message) => message.key === key),
    async close() {
      await subscription.close()
      await running
    },
  }
}

function toWire({ topic, key, headers, value }: BusMessage): WireMessage {
  const text = new TextDecoder().decode(value ?? new Uint8Array())
  let body: Record<string, unknown> = {}
  try {
    body = JSON.parse(text) as Record<string, unknown>
  } catch {
    // A value that is not JSON has no fields.
  }
  return { topic, key, headers, body, text }
}

/** Sends a body as a foreign program does: without headers, unless some are given. */
export function sendBare(
  bus: Bus,
  topic: string,
  body: { readonly accountId: string; readonly [field: string]: unknown },
  headers: Record<string, string> = {},
): Promise<void> {
  const value = new TextEncoder().encode(JSON.stringify(body))
  return bus.send([{ topic, key: body.accountId, value, headers }])
}

export interface FakeRequest {
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** `hang` never responds; `cut` breaks the connection after reading the request. */
export type FakeResponse = { readonly status: number; readonly body?: unknown } | 'hang' | 'cut'

/** A fake of another service: it records requests and returns the response that the test sets. */
export async function startFakeService(initial: FakeResponse) {
  const requests: FakeRequest[] = []
  let decide: (request: FakeRequest) => FakeResponse = () => initial
  const server = createServer((incoming, response) => {
    const chunks: Uint8Array[] = []
    incoming.on('data', (chunk: Uint8Array) => chunks.push(chunk))
    incoming.on('end', () => {
      const { method = '', url: path = '', headers } = incoming
      const request = { method, path, headers, body: Buffer.concat(chunks).toString() }
      requests.push(request)
      respond(response, decide(request))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    /** The requests that mention an id, in path or body. */
    about: (id: string) => requests.filter(({ path, body }) => `${path} ${body}`.includes(id)),
    respondWith(next: FakeResponse | ((request: FakeRequest) => FakeResponse)) {
      decide = typeof next === 'function' ? next : () => next
    },
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function respond(response: ServerResponse, fake: FakeResponse): void {
  if (fake === 'hang') return
  if (fake === 'cut') return void response.destroy()
  response.writeHead(fake.status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(fake.body ?? null))
}

/** Calls a service through its own router, without a socket. */
export function caller(service: Service) {
  return async (
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    url: string,
    options: { body?: object; headers?: Record<string, string> } = {},
  ) => {
    const { body, headers = {} } = options
    const response = await service.app.inject({
      method,
      url,
      headers,
      ...(body && { payload: body }),
    })
    return {
      status: response.statusCode,
      headers: response.headers,
      // biome-ignore lint/suspicious/noExplicitAny: each test knows the shape of its response.
      body: JSON.parse(response.body) as any,
    }
  }
}
