import type { ServiceParts } from '../../../chassis/service.ts'
import type { Bus } from '../../../messaging/bus.ts'
import { type Runtime, uuidV7 } from '../../../platform/async/runtime.ts'
import type { Telemetry } from '../../../platform/telemetry/telemetry.ts'
import type { Chance } from './chance.ts'
import { type Life, laterIn, never } from './lives.ts'
import type { Scheduler } from './scheduler.ts'

const inertBus: Bus = {
  send: never,
  subscribe: never,
  ping: never,
  close: async () => {},
}

const inertTelemetry: Telemetry = {
  count: () => {},
  observe: () => {},
  gauge: () => {},
  scrape: async () => ({ contentType: 'text/plain', body: '' }),
}

/** Parts of a service that do nothing: logs and metrics are discarded, and calls never return. */
export const inertParts: Omit<ServiceParts, 'database'> = {
  bus: inertBus,
  http: never,
  runtime: {
    now: () => 0,
    monotonic: () => 0,
    sleep: never,
    turn: never,
    uuid: () => '',
    random: () => 0,
  },
  log: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} },
  telemetry: inertTelemetry,
  soleProcess: false,
  server: {
    basePath: '',
    bodyLimitBytes: 65_536,
    rateLimitPerMinute: 0,
    documented: false,
  },
}

/** The clock, timers and random numbers of one life. */
export function runtimeOf(life: Life, scheduler: Scheduler, chance: Chance): Runtime {
  const now = () => life.clock.read(scheduler.now())
  return {
    now,
    monotonic: scheduler.now,
    sleep(durationMs, signal) {
      if (!life.alive) return never()
      return new Promise((resolve) => {
        if (signal?.aborted) return resolve()
        const finish = () => {
          cancel()
          signal?.removeEventListener('abort', finish)
          resolve()
        }
        const cancel = laterIn(life, scheduler, durationMs, finish)
        signal?.addEventListener('abort', finish)
      })
    },
    turn: () => new Promise((resolve) => laterIn(life, scheduler, 0, resolve)),
    uuid: () =>
      uuidV7(
        now(),
        Uint8Array.from({ length: 10 }, () => chance.integer(256)),
      ),
    random: () => chance.next(),
  }
}
