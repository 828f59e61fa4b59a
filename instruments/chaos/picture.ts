import {
  CHART_STYLE,
  escapeText,
  faultsChart,
  LEGEND,
  latencyChart,
  settledChart,
} from './charts.ts'
import type { Report } from './figures.ts'
import { sentenceOf } from './report.ts'

/** The charts of a report in one SVG file, for the documents. Lengths are in pixels. */
export function chaosPicture(report: Report): string {
  let y = HEAD
  const parts = [
    { title: 'Faults', chart: faultsChart(report), legend: faultLegend() },
    {
      title: 'Latency: median (green) and 99th percentile (blue); red: requests without a response',
      chart: latencyChart(report),
    },
    { title: 'Orders settled per second', chart: settledChart(report) },
  ].map(({ title, chart, legend = '' }) => {
    const [, width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(chart) ?? []
    const top = y + HEADING
    const heading = `<g transform="translate(20 ${y + HEADING / 2})"><text class="heading">${title}</text>${legend}</g>`
    y = top + Number(height)
    return `${heading}\n${chart.replace('<svg ', `<svg x="0" y="${top}" width="${width}" height="${height}" `)}`
  })
  const count = report.findings.length
  const sentence = `${sentenceOf(report)} Violations: ${count}.`
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + FOOT}" width="${WIDTH}" height="${y + FOOT}" role="img" aria-labelledby="title">
<title id="title">A chaos run</title>
<style>
${CHART_STYLE}
svg .heading { font-size: 14px; font-weight: 600; fill: var(--text); }
</style>
<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${y + FOOT - 1}" rx="10" fill="var(--card)" stroke="var(--grid)"/>
<text x="20" y="${HEAD / 2 + 4}">${escapeText(sentence)}</text>
${parts.join('\n')}
</svg>
`
}

const [WIDTH, HEAD, HEADING, FOOT] = [1_120, 40, 34, 8]
const LEGEND_LEFT = 90
const LEGEND_STEP = 110

function faultLegend(): string {
  return LEGEND.map(([kind, text], at) => {
    const x = LEGEND_LEFT + at * LEGEND_STEP
    return `<rect class="${kind}" x="${x}" y="-5" width="11" height="11" rx="3"/><text x="${x + 17}">${text}</text>`
  }).join('')
}
