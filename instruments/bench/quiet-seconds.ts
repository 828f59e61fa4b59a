import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import type { Costs, Pace } from './contest.ts'

/**
 * Measures for so many seconds in which the host of a virtual machine leaves it its processors. Where a
 * neighbour takes a tenth of them, all that an order waits for takes two to three times as long; that comes
 * and goes in minutes, and so makes one minute differ from another whatever is measured in them.
 */
export interface Span {
  /** So many seconds count: those in which the host took least. */
  readonly seconds: number
  /** It ends after so many, even if fewer were quiet; unless told otherwise each second counts. */
  readonly mostSeconds?: number
}

/** Something that took its time, and when it began, as `performance.now()` tells it. */
export interface Timed {
  readonly begunMs: number
  readonly tookMs: number
}

export interface Quietest {
  /** Of what began in the seconds that count. */
  readonly tookMs: readonly number[]
  /** How long it took until so many had come. */
  readonly lastedSeconds: number
  /** What the host took of all processors in the seconds that count, 0 to 1. */
  readonly stolenShare: number
}

/** How long it is waited for that many quiet seconds. */
const MOST_TIMES_AS_LONG = 4

/** In haste nothing is waited for: then each second counts. */
export const quietSpan = (seconds: number, { quick }: Pace): Span =>
  quick ? { seconds } : { seconds, mostSeconds: seconds * MOST_TIMES_AS_LONG }

/** What to say of such seconds beside the figures that come from them. */
export const quietCosts = ({ lastedSeconds, stolenShare }: Quietest, when = ''): Costs => ({
  [`seconds until quiet${when}`]: lastedSeconds,
  [`percent stolen${when}`]: stolenShare * 100,
})

export interface Host {
  nowMs(): number
  /** Of all processors together, since it started. */
  stolenMs(): number
  readonly processors: number
}

/** Of all processors: two of the hundred ticks that each of two has in a second. */
const MOST_STOLEN_SHARE = 0.01
const TICK_MS = 10

const THIS_HOST: Host = {
  nowMs: () => performance.now(),
  // "cpu", user, nice, system, idle, iowait, irq, softirq, steal: see proc(5).
  stolenMs: () => Number(readFileSync('/proc/stat', 'utf8').split(/\s+/, 9)[8]) * TICK_MS,
  processors: cpus().length,
}

export function openSpan({ seconds, mostSeconds = seconds }: Span, host: Host = THIS_HOST) {
  const begunMs = host.nowMs()
  const past: { readonly fromMs: number; readonly toMs: number; readonly share: number }[] = []
  let fromMs = begunMs
  let stolenMs = host.stolenMs()

  function endSecond(toMs: number): void {
    const stolenNowMs = host.stolenMs()
    const share = (stolenNowMs - stolenMs) / ((toMs - fromMs) * host.processors)
    past.push({ fromMs, toMs, share })
    fromMs = toMs
    stolenMs = stolenNowMs
  }

  return {
    /** To be asked many times a second: it looks at the host once in each. */
    isOver(): boolean {
      const nowMs = host.nowMs()
      if (nowMs >= fromMs + 1_000) endSecond(nowMs)
      const lastedMs = nowMs - begunMs
      if (lastedMs >= mostSeconds * 1_000) return true
      const quiet = past.filter(({ share }) => share <= MOST_STOLEN_SHARE).length
      return quiet >= seconds
    },
    quietest(all: readonly Timed[]): Quietest {
      const nowMs = host.nowMs()
      if (nowMs > fromMs) endSecond(nowMs)
      const counted = past.toSorted((a, b) => a.share - b.share).slice(0, seconds)
      const counts = ({ begunMs: atMs }: Timed) =>
        counted.some((one) => one.fromMs <= atMs && atMs < one.toMs)
      const shares = counted.reduce((sum, { share }) => sum + share, 0)
      return {
        tookMs: all.filter(counts).map(({ tookMs }) => tookMs),
        lastedSeconds: (fromMs - begunMs) / 1_000,
        stolenShare: shares / counted.length,
      }
    },
  }
}
