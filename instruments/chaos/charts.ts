import type { InjectedFault } from './faults/faults.ts'
import { TARGETS } from './faults/schedule.ts'
import type { Report } from './figures.ts'

/** The three charts of a report as SVG, one above the other on the same time axis. */

const WIDTH = 1_120
const LEFT = 168
const RIGHT = 24
const PLOT = WIDTH - LEFT - RIGHT
const LANE = 19
const AXIS = 26
const TOP = 8

/**
 * The color class of each fault; faults that are not listed are network faults. Each bar also shows the name
 * of its fault.
 */
const CLASSES: Readonly<Record<string, string>> = {
  kill: 'killed',
  freeze: 'frozen',
  'freeze in transaction': 'frozen',
  'wrong clock': 'clock',
  'disk full': 'full',
}
export const LEGEND = [
  ['killed', 'killed'],
  ['frozen', 'frozen'],
  ['clock', 'wrong clock'],
  ['network', 'network'],
  ['full', 'disk full'],
] as const

type Scale = (timeMs: number) => number

function timeScale({ startedMs, restMs }: Report): Scale {
  return (timeMs) => LEFT + ((timeMs - startedMs) / (restMs - startedMs)) * PLOT
}

/** Draws a row for each target that had a fault. */
export function faultsChart(report: Report): string {
  const x = timeScale(report)
  const targets = TARGETS.filter((target) => report.faults.some((fault) => fault.target === target))
  const height = TOP + targets.length * LANE
  const lanes = targets.map((target, row) => {
    const y = TOP + row * LANE
    const own = report.faults.filter((fault) => fault.target === target)
    const line = `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y + LANE / 2}" y2="${y + LANE / 2}"/>`
    return `${label(target, y + LANE / 2)}${line}${own.map((one) => bar(one, x, y, report)).join('')}`
  })
  return picture('Faults over time', height, report, lanes.join('\n'))
}

function bar(fault: InjectedFault, x: Scale, y: number, { startedMs }: Report): string {
  const { name, detail, beganMs, endedMs } = fault
  const from = x(beganMs)
  const width = Math.max(2, x(endedMs) - from)
  const at = `from ${seconds(beganMs - startedMs)} for ${seconds(endedMs - beganMs)}`
  const title = `<title>${escapeText([name, detail, at].filter(Boolean).join(', '))}</title>`
  const box = `<rect class="${CLASSES[name] ?? 'network'}" x="${px(from)}" y="${y + 2}" width="${px(width)}" height="${LANE - 4}" rx="3"/>`
  // A character of this font size is about 6 px wide.
  const fits = width > name.length * 6 + 8
  const text = fits ? `<text class="in" x="${px(from + 5)}" y="${y + LANE / 2}">${name}</text>` : ''
  return `<g>${title}${box}${text}</g>`
}

const DECADES_MS = [1, 10, 100, 1_000, 10_000]

/** Median and 99th percentile of each second, on a logarithmic axis; unanswered requests above. */
export function latencyChart(report: Report): string {
  const height = 200
  const bottom = height
  const top = TOP + 24
  const low = Math.log10(DECADES_MS[0]!)
  const high = Math.log10(DECADES_MS.at(-1)! * 1.2)
  const y = (ms: number) =>
    bottom - ((Math.log10(Math.max(1, ms)) - low) / (high - low)) * (bottom - top)
  const grid = DECADES_MS.map((ms) => gridLine(y(ms), ms < 1_000 ? `${ms} ms` : `${ms / 1_000} s`))
  const lines = (['p99Ms', 'p50Ms'] as const).map((name) => curve(report, name, y))
  const most = Math.max(1, ...report.seconds.map(({ unanswered }) => unanswered))
  const unanswered = report.seconds.map(({ unanswered: count }, second) => {
    if (count === 0) return ''
    const size = 3 + 11 * (count / most)
    return column(report, second, top - 8 - size, size, 'lost', `${count} without a response`)
  })
  const content = [...grid, label('no response', TOP + 6), ...unanswered, ...lines].join('\n')
  return picture(
    'Latency of requests, by the second in which they were sent',
    height,
    report,
    content,
  )
}

function curve(report: Report, name: 'p50Ms' | 'p99Ms', y: (ms: number) => number): string {
  const x = timeScale(report)
  let path = ''
  let isOn = false
  for (const [second, { [name]: ms }] of report.seconds.entries()) {
    if (ms !== undefined) {
      const at = x(report.startedMs + (second + 0.5) * 1_000)
      path += `${isOn ? 'L' : 'M'}${px(at)} ${px(y(ms))}`
    }
    isOn = ms !== undefined
  }
  return `<path class="${name === 'p50Ms' ? 'median' : 'tail'}" d="${path}"/>`
}

export function settledChart(report: Report): string {
  const height = 130
  const most = roundNumberAbove(Math.max(1, ...report.seconds.map(({ settled }) => settled)))
  const y = (count: number) => height - (count / most) * (height - TOP)
  const grid = [0, most / 2, most].map((count) => gridLine(y(count), String(count)))
  const columns = report.seconds.map(({ settled }, second) =>
    settled === 0
      ? ''
      : column(report, second, y(settled), height - y(settled), 'settled', `${settled} settled`),
  )
  return picture('Orders settled in each second', height, report, [...grid, ...columns].join('\n'))
}

function column(
  report: Report,
  second: number,
  y: number,
  height: number,
  kind: string,
  title: string,
): string {
  const x = timeScale(report)
  const from = x(report.startedMs + second * 1_000)
  const width = x(report.startedMs + (second + 1) * 1_000) - from
  const gap = width > 4 ? 1 : 0
  const box = `x="${px(from)}" y="${px(y)}" width="${px(Math.max(0.8, width - gap))}" height="${px(height)}"`
  return `<rect class="${kind}" ${box}><title>${second} s: ${title}</title></rect>`
}

/** A chart with a time axis below it. The quiet phase after the faults is shaded. */
function picture(title: string, height: number, report: Report, content: string): string {
  const x = timeScale(report)
  const { startedMs, healedMs, restMs } = report
  const step =
    [5, 10, 15, 30, 60, 120, 300, 600].find((s) => (restMs - startedMs) / s < 16_000) ?? 1_800
  const ticks: string[] = []
  for (let second = 0; startedMs + second * 1_000 <= restMs; second += step) {
    const at = px(x(startedMs + second * 1_000))
    ticks.push(
      `<line class="grid" x1="${at}" x2="${at}" y1="${TOP}" y2="${height}"/>`,
      `<text class="tick" x="${at}" y="${height + 15}">${clock(second)}</text>`,
    )
  }
  const quiet = `<rect class="quiet" x="${px(x(healedMs))}" y="${TOP}" width="${px(x(restMs) - x(healedMs))}" height="${height - TOP}"><title>Faults are over</title></rect>`
  return `<svg viewBox="0 0 ${WIDTH} ${height + AXIS}" role="img" aria-label="${title}">${quiet}${ticks.join('')}${content}</svg>`
}

function gridLine(y: number, text: string): string {
  return `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${px(y)}" y2="${px(y)}"/>${label(text, y)}`
}

const label = (text: string, y: number) =>
  `<text class="label" x="${LEFT - 10}" y="${px(y)}">${escapeText(text)}</text>`

function roundNumberAbove(most: number): number {
  return [2, 4, 10, 20, 30, 40, 60, 100, 200, 400, 1_000].find((nice) => nice >= most) ?? most
}

const clock = (second: number) =>
  `${Math.floor(second / 60)}:${String(second % 60).padStart(2, '0')}`
const seconds = (ms: number) => `${(ms / 1_000).toFixed(1)} s`
const px = (value: number) => String(Math.round(value * 10) / 10)

export function escapeText(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)
}

/** The colors and classes of the pictures, in light and in dark. */
export const CHART_STYLE = `:root {
  color-scheme: light dark;
  --page: light-dark(#f6f7f9, #12151b); --card: light-dark(#ffffff, #1a1f27);
  --text: light-dark(#1b2330, #e6e9ef); --soft: light-dark(#5d6878, #98a2b3);
  --grid: light-dark(#e3e7ed, #2a313c); --quiet: light-dark(#e4f3ea, #16291f);
  --killed: light-dark(#d64545, #e5645f); --frozen: light-dark(#3b78c9, #5b96e6);
  --network: light-dark(#c77d0a, #d99a2b); --full: light-dark(#7d52b8, #a37be0);
  --clock: light-dark(#0f8a8a, #35b5b5);
  --ok: light-dark(#1f8a55, #45c184); --median: light-dark(#1f8a55, #45c184);
  --tail: light-dark(#3b78c9, #6ea6f0);
}
svg text { font: 11.5px system-ui, sans-serif; dominant-baseline: central; fill: var(--soft); }
svg .label { text-anchor: end; fill: var(--text); }
svg .tick { text-anchor: middle; }
svg .in { fill: #fff; font-size: 10.5px; font-weight: 600; pointer-events: none; }
.grid { stroke: var(--grid); } .quiet { fill: var(--quiet); }
.killed { fill: var(--killed); } .frozen { fill: var(--frozen); }
.network { fill: var(--network); } .full { fill: var(--full); }
.clock { fill: var(--clock); }
.lost { fill: var(--killed); } .settled { fill: var(--ok); }
path { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.median { stroke: var(--median); }
.tail { stroke: var(--tail); }`
