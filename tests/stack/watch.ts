import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Replica } from '../../tools/stack/services.ts'
import { fetchFromReplica, metricOf, type ReplicaResponse } from './own-stack.ts'

/** Polls the health and metrics of every replica during an outage. */
export interface Watch {
  /**
   * Polls once more. Rejects if any poll found a replica that had ended, responded slowly or reported a wrong
   * state.
   */
  stop(): Promise<WatchReport>
}

export interface WatchReport {
  readonly polls: number
  /** Milliseconds from the start until the last replica reported that it was not ready. */
  readonly noticedMs: number
  readonly slowestHealthMs: number
  readonly slowestScrapeMs: number
  /** The number of rows at each poll, by service. */
  readonly outboxRows: ReadonlyMap<string, readonly number[]>
  readonly oldestSeconds: ReadonlyMap<string, number>
}

const POLL_MS = 1_000
/** Dependency checks take at most 1.5 s, gauges 2 s; the rest allows for a busy machine. */
const HEALTH_LIMIT_MS = 4_000
const SCRAPE_LIMIT_MS = 6_000
const NOTICE_LIMIT_MS = 8_000

/**
 * To be called when the `missing` dependency has gone down. Asserts that all replicas keep running and stay
 * alive, that they are not ready only because of that dependency, and that they can be scraped.
 */
export function watchOutage(replicas: readonly Replica[], missing: 'broker' | 'database'): Watch {
  const startedMs = performance.now()
  const pids = replicas.map(({ server }) => server.pid)
  const noticedMs = new Map<Replica, number>()
  const outboxRows = new Map<string, number[]>()
  const oldestSeconds = new Map<string, number>()
  let slowestHealthMs = 0
  let slowestScrapeMs = 0
  let polls = 0
  let stopped = false

  function checkReadiness(replica: Replica, { status, body }: ReplicaResponse): void {
    const now = performance.now() - startedMs
    const { components } = JSON.parse(body)
    const isDown = status === 503 && components[missing]?.status === 'DOWN'
    if (isDown && !noticedMs.has(replica)) noticedMs.set(replica, now)
    const mayBeUp = now < NOTICE_LIMIT_MS && !noticedMs.has(replica)
    assert.ok(isDown || mayBeUp, `${replica.service} reports ${status} ${body} after ${now} ms`)
    const other = missing === 'broker' ? 'database' : 'broker'
    assert.equal(components[other]?.status, 'UP', `${replica.service}: ${body}`)
  }

  async function poll(replica: Replica): Promise<void> {
    const { service } = replica
    const [liveness, readiness, scrape] = await Promise.all([
      fetchFromReplica(replica, 'actuator/health/liveness'),
      fetchFromReplica(replica, 'actuator/health/readiness'),
      fetchFromReplica(replica, 'actuator/prometheus'),
    ])
    assert.equal(liveness.status, 200)
    assert.equal(scrape.status, 200)
    checkReadiness(replica, readiness)
    slowestHealthMs = Math.max(slowestHealthMs, liveness.tookMs, readiness.tookMs)
    slowestScrapeMs = Math.max(slowestScrapeMs, scrape.tookMs)
    const ready = metricOf(scrape.body, 'trifold_ready', `dependency="${missing}"`)
    if (performance.now() - startedMs > NOTICE_LIMIT_MS) assert.equal(ready, 0, service)
    const rows = metricOf(scrape.body, 'trifold_outbox_rows', 'carrier="broker"')
    if (rows !== undefined) outboxRows.set(service, [...(outboxRows.get(service) ?? []), rows])
    const oldest = metricOf(scrape.body, 'trifold_outbox_oldest_seconds')
    if (oldest !== undefined) oldestSeconds.set(service, oldest)
  }

  async function pollAll(): Promise<void> {
    await Promise.all(replicas.map(poll))
    polls += 1
  }

  async function run(): Promise<void> {
    while (!stopped) {
      await pollAll()
      await sleep(POLL_MS)
    }
  }

  const running = run()
  // `stop` reports the failure.
  running.catch(() => undefined)
  return {
    async stop() {
      stopped = true
      await running
      await pollAll()
      assertRun(replicas, pids)
      assert.equal(noticedMs.size, replicas.length)
      assert.ok(slowestHealthMs < HEALTH_LIMIT_MS, `health took ${slowestHealthMs} ms`)
      assert.ok(slowestScrapeMs < SCRAPE_LIMIT_MS, `a scrape took ${slowestScrapeMs} ms`)
      return {
        polls,
        slowestHealthMs,
        slowestScrapeMs,
        outboxRows,
        oldestSeconds,
        noticedMs: Math.max(...noticedMs.values()),
      }
    },
  }
}

/** Every replica still runs in the process that it ran in before. */
function assertRun(replicas: readonly Replica[], pids: readonly number[]): void {
  for (const [index, { service, server }] of replicas.entries()) {
    assert.equal(server.pid, pids[index], service)
    assert.doesNotThrow(() => process.kill(server.pid, 0), `${service} has ended`)
  }
}

/** The resident memory of each replica, in mebibytes. */
export function memoryOf(replicas: readonly Replica[]): Map<string, number> {
  return new Map(
    replicas.map(({ service, number, server }) => {
      const { stdout } = spawnSync('ps', ['-o', 'rss=', '-p', String(server.pid)])
      return [`${service} ${number}`, Math.round(Number(stdout.toString()) / 1024)]
    }),
  )
}
