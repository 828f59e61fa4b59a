import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Replica } from '../../tools/stack/services.ts'
import { askReplica, metricOf, type Seen } from './own-stack.ts'

/** What every replica says of itself while something is away. */
export interface Watch {
  /** Looks once more, and fails where a replica ended, was slow or did not say what is so. */
  stop(): Promise<WatchReport>
}

export interface WatchReport {
  readonly looks: number
  /** How long after the beginning the last replica said that it is not ready. */
  readonly noticedMs: number
  readonly slowestHealthMs: number
  readonly slowestScrapeMs: number
  /** The gauge of each service, from look to look. */
  readonly outboxRows: ReadonlyMap<string, readonly number[]>
  readonly oldestSeconds: ReadonlyMap<string, number>
}

const LOOK_EVERY_MS = 1_000
/** Tests of dependencies take 1.5 s at most, gauges 2 s; the rest is for a busy machine. */
const HEALTH_LIMIT_MS = 4_000
const SCRAPE_LIMIT_MS = 6_000
const NOTICE_LIMIT_MS = 8_000

/**
 * Begins to watch as soon as `missing` is away: all stay up and alive, are not ready because of that
 * one and nothing else, and can be scraped.
 */
export function watchOutage(replicas: readonly Replica[], missing: 'broker' | 'database'): Watch {
  const begunMs = performance.now()
  const pids = replicas.map(({ server }) => server.pid)
  const noticedMs = new Map<Replica, number>()
  const outboxRows = new Map<string, number[]>()
  const oldestSeconds = new Map<string, number>()
  let slowestHealthMs = 0
  let slowestScrapeMs = 0
  let looks = 0
  let stopped = false

  function lookAtReadiness(replica: Replica, { status, body }: Seen): void {
    const now = performance.now() - begunMs
    const { components } = JSON.parse(body)
    const isDown = status === 503 && components[missing]?.status === 'DOWN'
    if (isDown && !noticedMs.has(replica)) noticedMs.set(replica, now)
    const mayBeUp = now < NOTICE_LIMIT_MS && !noticedMs.has(replica)
    assert.ok(isDown || mayBeUp, `${replica.service} says ${status} ${body} after ${now} ms`)
    const other = missing === 'broker' ? 'database' : 'broker'
    assert.equal(components[other]?.status, 'UP', `${replica.service}: ${body}`)
  }

  async function look(replica: Replica): Promise<void> {
    const { service } = replica
    const [liveness, readiness, scrape] = await Promise.all([
      askReplica(replica, 'actuator/health/liveness'),
      askReplica(replica, 'actuator/health/readiness'),
      askReplica(replica, 'actuator/prometheus'),
    ])
    assert.equal(liveness.status, 200)
    assert.equal(scrape.status, 200)
    lookAtReadiness(replica, readiness)
    slowestHealthMs = Math.max(slowestHealthMs, liveness.tookMs, readiness.tookMs)
    slowestScrapeMs = Math.max(slowestScrapeMs, scrape.tookMs)
    const ready = metricOf(scrape.body, 'trifold_ready', `dependency="${missing}"`)
    if (performance.now() - begunMs > NOTICE_LIMIT_MS) assert.equal(ready, 0, service)
    const rows = metricOf(scrape.body, 'trifold_outbox_rows', 'carrier="broker"')
    if (rows !== undefined) outboxRows.set(service, [...(outboxRows.get(service) ?? []), rows])
    const oldest = metricOf(scrape.body, 'trifold_outbox_oldest_seconds')
    if (oldest !== undefined) oldestSeconds.set(service, oldest)
  }

  async function lookAtAll(): Promise<void> {
    await Promise.all(replicas.map(look))
    looks += 1
  }

  async function run(): Promise<void> {
    while (!stopped) {
      await lookAtAll()
      await sleep(LOOK_EVERY_MS)
    }
  }

  const running = run()
  // Its failure is told to whoever stops it.
  running.catch(() => undefined)
  return {
    async stop() {
      stopped = true
      await running
      await lookAtAll()
      assertRun(replicas, pids)
      assert.equal(noticedMs.size, replicas.length)
      assert.ok(slowestHealthMs < HEALTH_LIMIT_MS, `health took ${slowestHealthMs} ms`)
      assert.ok(slowestScrapeMs < SCRAPE_LIMIT_MS, `a scrape took ${slowestScrapeMs} ms`)
      return {
        ...{ looks, slowestHealthMs, slowestScrapeMs, outboxRows, oldestSeconds },
        noticedMs: Math.max(...noticedMs.values()),
      }
    },
  }
}

/** They are the processes that they were. */
function assertRun(replicas: readonly Replica[], pids: readonly number[]): void {
  for (const [index, { service, server }] of replicas.entries()) {
    assert.equal(server.pid, pids[index], service)
    assert.doesNotThrow(() => process.kill(server.pid, 0), `${service} has ended`)
  }
}

/** The memory that each replica has, in mebibytes. */
export function memoryOf(replicas: readonly Replica[]): Map<string, number> {
  return new Map(
    replicas.map(({ service, number, server }) => {
      const { stdout } = spawnSync('ps', ['-o', 'rss=', '-p', String(server.pid)])
      return [`${service} ${number}`, Math.round(Number(stdout.toString()) / 1024)]
    }),
  )
}
