import { usageOf } from '../processes.ts'
import { percentile } from '../statistics.ts'
import { ownConnections, sharedConnections } from './overload-clients.ts'

/**
 * Clients that arrive at a given rate, whether or not earlier clients have been served, each with the same
 * patience. Runs in a separate process, which also samples the CPU and memory of the servers.
 */
export interface OverloadLoad {
  readonly url: string
  readonly style: string
  readonly accounts: readonly string[]
  /** `own` is a connection per client; a number is that many shared connections. */
  readonly connections: 'own' | number
  readonly patienceMs: number
  readonly phases: readonly Phase[]
  /** Process ids of the servers, by name. */
  readonly pids: Readonly<Record<string, number>>
}

export interface Phase {
  readonly seconds: number
  /** How many clients arrive per second. */
  readonly perSecond?: number
  /** Instead of `perSecond`: how many clients send one request after another. */
  readonly clients?: number
}

/** Counts and times of the requests sent in a phase. */
export interface PhaseResult {
  readonly seconds: number
  readonly sent: number
  /** Responses 201 within the clients' patience. */
  readonly good: number
  /** Responses 429. */
  readonly rejected: number
  /** Responses 201 that came too late, and requests without a response. */
  readonly late: number
  /** Connections that ended, and responses with other statuses. */
  readonly failed: number
  readonly servedMs: Quantiles
  readonly rejectedMs: Quantiles
  /** Milliseconds from the start of the phase until the last request was sent that was not served in time. */
  readonly normalAfterMs: number
  /** CPU time of the servers, and the largest memory of each. */
  readonly cpuMs: number
  readonly rssBytes: Readonly<Record<string, number>>
  /** How late this process sent its requests (p99), which shows whether it was the bottleneck. */
  readonly lagMs: number
  /** This process's share of a processor. */
  readonly load: number
}

interface Quantiles {
  readonly p50: number
  readonly p99: number
}

const BODY = '{"productQuantity":1}'
const TICK_MS = 1
/** Clients that send one request after another pause this long after a rejection, as Retry-After asks. */
const RETRY_AFTER_MS = 1_000
const SAMPLE_PERIOD_MS = 1_000

export async function applyOverload(load: OverloadLoad): Promise<PhaseResult[]> {
  const { hostname, port, host } = new URL(load.url)
  const { connections, patienceMs } = load
  const requests = load.accounts.map((account) => requestOf(account, load, host))
  const clients =
    connections === 'own'
      ? ownConnections(Number(port), hostname)
      : sharedConnections(Number(port), hostname, connections)
  let sent = 0
  const results: (() => PhaseResult)[] = []

  async function run(phase: Phase): Promise<void> {
    const record = openRecord(load)
    const watching = setInterval(record.watch, SAMPLE_PERIOD_MS)
    const untilMs = record.beganMs + phase.seconds * 1_000
    let inPhase = 0

    function send(next: (status: number) => void): void {
      const sentMs = performance.now()
      let isOver = false
      const end = (status: number) => {
        if (isOver) return
        isOver = true
        clearTimeout(timer)
        record.ended(status, sentMs)
        next(status)
      }
      inPhase += 1
      const hangUp = clients.send(requests[sent++ % requests.length]!, end)
      const timer = setTimeout(() => {
        hangUp()
        if (connections === 'own') end(LATE)
      }, patienceMs)
    }

    const sendNext = (status: number) => {
      if (performance.now() >= untilMs) return
      if (status === 201) send(sendNext)
      else setTimeout(sendNext, RETRY_AFTER_MS, 201)
    }
    for (let n = 0; n < (phase.clients ?? 0); n += 1) send(sendNext)
    for (let nowMs = performance.now(); nowMs < untilMs; nowMs = performance.now()) {
      const due = Math.floor(((nowMs - record.beganMs) * (phase.perSecond ?? 0)) / 1_000)
      if (due > inPhase) {
        record.lag(nowMs - record.beganMs - (inPhase * 1_000) / phase.perSecond!)
        while (inPhase < due) send(() => undefined)
      }
      await new Promise((resolve) => setTimeout(resolve, TICK_MS))
    }
    clearInterval(watching)
    record.close()
    results.push(() => record.result(phase, inPhase))
  }

  for (const phase of load.phases) await run(phase)
  // The last requests may still get a response in time.
  await new Promise((resolve) => setTimeout(resolve, patienceMs + 500))
  clients.close()
  return results.map((result) => result())
}

const LATE = -1

/** Records the results of the requests of one phase. */
function openRecord({ pids, patienceMs }: OverloadLoad) {
  const beganMs = performance.now()
  const servedMs: number[] = []
  const rejectedMs: number[] = []
  const lagMs: number[] = []
  const rssBytes: Record<string, number> = {}
  const before = usageOf(pids)
  const ownCpu = process.cpuUsage()
  let normalAfterMs = 0
  let failed = 0
  let good = 0
  let cpuMs = 0
  let ownMs = 0

  function watch() {
    const usage = usageOf(pids)
    for (const [name, of] of Object.entries(usage)) {
      rssBytes[name] = Math.max(rssBytes[name] ?? 0, of.rssBytes)
    }
    return usage
  }

  return {
    beganMs,
    watch,
    lag: (ms: number) => lagMs.push(ms),
    ended(status: number, sentMs: number) {
      const tookMs = performance.now() - sentMs
      if (status === 201) servedMs.push(tookMs)
      else if (status === 429) rejectedMs.push(tookMs)
      else if (status !== LATE) failed += 1
      if (status === 201 && tookMs <= patienceMs) good += 1
      else normalAfterMs = Math.max(normalAfterMs, sentMs - beganMs)
    },
    close() {
      const after = watch()
      for (const [name, of] of Object.entries(after)) cpuMs += of.cpuMs - before[name]!.cpuMs
      const { user, system } = process.cpuUsage(ownCpu)
      ownMs = (user + system) / 1_000
    },
    result: ({ seconds }: Phase, sent: number): PhaseResult => ({
      seconds,
      sent,
      good,
      failed,
      normalAfterMs,
      cpuMs,
      rssBytes,
      rejected: rejectedMs.length,
      // Requests without a response count as late.
      late: sent - good - rejectedMs.length - failed,
      servedMs: quantilesOf(servedMs),
      rejectedMs: quantilesOf(rejectedMs),
      lagMs: quantilesOf(lagMs).p99,
      load: ownMs / (seconds * 1_000),
    }),
  }
}

function quantilesOf(values: readonly number[]): Quantiles {
  if (values.length === 0) return { p50: 0, p99: 0 }
  return { p50: percentile(values, 0.5), p99: percentile(values, 0.99) }
}

function requestOf(account: string, { style, connections }: OverloadLoad, host: string): Buffer {
  const lines = [
    `POST /orders?profileId=${account} HTTP/1.1`,
    `host: ${host}`,
    'content-type: application/json',
    `content-length: ${BODY.length}`,
    `x-interaction-style: ${style}`,
  ]
  if (connections === 'own') lines.push('connection: close')
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${BODY}`)
}

if (import.meta.main) {
  process.on('message', async (load: OverloadLoad) => {
    process.send?.(await applyOverload(load))
  })
}
