import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import type { Costs, Pace } from './contest.ts'

/**
 * Measures until there are enough seconds in which the host of a virtual machine stole no CPU time from it.
 * If a neighbor takes a tenth of the CPU time, every step of an order takes two to three times as long. Such
 * load comes and goes within minutes, so one minute would differ from the next, whatever is measured.
 */
export interface Span {
  /** How many seconds count; the ones in which the host took the least CPU time are chosen. */
  readonly seconds: number
  /** The measurement ends after this many seconds, even if too few were quiet. By default, `seconds`. */
  readonly maxSeconds?: number
}

/** The duration of a measured operation, and when it started, by `performance.now()`. */
export interface Timed {
  readonly startedMs: number
  readonly tookMs: number
}

export interface Quietest {
  /** Durations of the operations that started in the seconds that count. */
  readonly tookMs: readonly number[]
  /** Length of the whole measurement. */
  readonly lastedSeconds: number
  /** The share of all processors that the host took in the seconds that count, 0 to 1. */
  readonly stolenShare: number
}

/** A measurement can last this many times as long as the quiet seconds that it needs. */
const MAX_EXTENSION = 4

/** With --quick, every second counts, and the measurement does not wait for quiet ones. */
export const quietSpan = (seconds: number, { quick }: Pace): Span =>
  quick ? { seconds } : { seconds, maxSeconds: seconds * MAX_EXTENSION }

/** The costs to report with figures that come from quiet seconds. */
export const quietCosts = ({ lastedSeconds, stolenShare }: Quietest, when = ''): Costs => ({
  [`seconds until quiet${when}`]: lastedSeconds,
  [`percent stolen${when}`]: stolenShare * 100,
})

export interface Host {
  nowMs(): number
  /** Time taken from all processors together since the machine started. */
  stolenMs(): number
  readonly processors: number
}

/** A second is quiet up to this share of all processors: with two processors, 2 of their 200 ticks. */
const MAX_STOLEN_SHARE = 0.01
const TICK_MS = 10

const THIS_HOST: Host = {
  nowMs: () => performance.now(),
  // "cpu", user, nice, system, idle, iowait, irq, softirq, steal: see proc(5).
  stolenMs: () => Number(readFileSync('/proc/stat', 'utf8').split(/\s+/, 9)[8]) * TICK_MS,
  processors: cpus().length,
}

export function openSpan({ seconds, maxSeconds = seconds }: Span, host: Host = THIS_HOST) {
  const startedMs = host.nowMs()
  const past: { readonly fromMs: number; readonly toMs: number; readonly share: number }[] = []
  let fromMs = startedMs
  let stolenMs = host.stolenMs()

  function endSecond(toMs: number): void {
    const stolenNowMs = host.stolenMs()
    const share = (stolenNowMs - stolenMs) / ((toMs - fromMs) * host.processors)
    past.push({ fromMs, toMs, share })
    fromMs = toMs
    stolenMs = stolenNowMs
  }

  return {
    /** Must be called many times a second; it reads the host's counters once a second. */
    isOver(): boolean {
      const nowMs = host.nowMs()
      if (nowMs >= fromMs + 1_000) endSecond(nowMs)
      const lastedMs = nowMs - startedMs
      if (lastedMs >= maxSeconds * 1_000) return true
      const quiet = past.filter(({ share }) => share <= MAX_STOLEN_SHARE).length
      return quiet >= seconds
    },
    quietest(all: readonly Timed[]): Quietest {
      const nowMs = host.nowMs()
      if (nowMs > fromMs) endSecond(nowMs)
      const counted = past.toSorted((a, b) => a.share - b.share).slice(0, seconds)
      const counts = ({ startedMs: atMs }: Timed) =>
        counted.some((one) => one.fromMs <= atMs && atMs < one.toMs)
      const shares = counted.reduce((sum, { share }) => sum + share, 0)
      return {
        tookMs: all.filter(counts).map(({ tookMs }) => tookMs),
        lastedSeconds: (fromMs - startedMs) / 1_000,
        stolenShare: shares / counted.length,
      }
    },
  }
}
