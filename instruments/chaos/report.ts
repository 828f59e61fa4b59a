import { INVARIANTS } from '../../apps/audit/findings.ts'
import {
  CHART_STYLE,
  escapeText,
  faultsChart,
  LEGEND,
  latencyChart,
  settledChart,
} from './charts.ts'
import type { Report } from './figures.ts'

/** A page in a single file: the verdict, the charts, and the rules that were checked. */
export function reportPage(report: Report): string {
  const { findings, seed, style, minutes } = report
  const title = `Chaos: ${style}, seed ${seed}`
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<header>
<div>
<h1>${findings.length === 0 ? 'Nothing lost, nothing duplicated' : violations(findings.length)}</h1>
<p>${sentenceOf(report)}</p>
</div>
<span class="verdict ${findings.length === 0 ? 'clean' : 'violated'}">${findings.length === 0 ? 'clean' : 'violated'}</span>
</header>
${tiles(report)}
${findingsOf(report)}
<section>
<h2>Faults <span class="legend">${LEGEND.map(([kind, text]) => `<i class="${kind}"></i>${text}`).join(' ')}</span></h2>
${faultsChart(report)}
</section>
<section>
<h2>Latency <span class="legend"><i class="median"></i>median <i class="tail"></i>99th percentile <i class="lost"></i>no response</span></h2>
${latencyChart(report)}
</section>
<section>
<h2>Orders settled per second</h2>
${settledChart(report)}
</section>
${invariantsOf(report)}
<footer>
<p>The shaded part on the right is the quiet phase: the faults are over, the last customers leave, and unfinished work completes.
${diskOf(report)}
${sessionsOf(report)}
Run the same faults and customers again with <code>npm run chaos -- --minutes ${minutes} --style ${style} --seed ${seed}</code>.
Every request is in <code>history.jsonl</code>, the figures are in <code>report.json</code>.</p>
</footer>
</main>
</body>
</html>
`
}

function diskOf({ withoutDisk, diskRefusals, faults }: Report): string {
  if (withoutDisk !== undefined) return `There were no disk faults: ${escapeText(withoutDisk)}.`
  if (!faults.some(({ name }) => name === 'disk full')) return ''
  return `${number(diskRefusals)} writes failed because the disk was full.`
}

function sessionsOf({ endedSessions, faults }: Report): string {
  if (!faults.some(({ name }) => name === 'freeze in transaction')) return ''
  return `PostgreSQL ended ${number(endedSessions)} sessions that were idle in a transaction.`
}

/** Describes the run in a sentence. */
export function sentenceOf({ faults, minutes, style, seed, startedMs }: Report): string {
  const when = new Date(startedMs).toISOString().slice(0, 16).replace('T', ' ')
  const styles = style === 'mixed' ? 'all three styles' : `the style ${style}`
  return `${faults.length} faults in ${minutes === 1 ? 'a minute' : `${minutes} minutes`} on Apache Kafka, PostgreSQL, nginx and two replicas of each service, with customers using ${styles}. Seed ${seed}, ${when} UTC.`
}

function tiles(report: Report): string {
  const { requests, answered, rejected, orders, p50Ms, p99Ms, healedMs, restMs, messages } = report
  const settled = orders.APPROVED + orders.CANCELED
  const figures = [
    [
      'requests',
      number(requests),
      `${number(requests - answered)} without a response, ${number(rejected)} rejected`,
    ],
    [
      'orders settled',
      number(settled),
      `${number(orders.APPROVED)} approved, ${number(orders.CANCELED)} canceled`,
    ],
    ['ledger entries', number(report.ledgerEntries), `${number(messages)} notices to customers`],
    ['median', `${Math.round(p50Ms)} ms`, `99th percentile ${duration(p99Ms)}`],
    [
      'at rest after',
      duration(restMs - healedMs),
      'from the last fault, including the last customers',
    ],
  ]
  const tile = ([name, value, more]: string[]) =>
    `<div class="tile"><span>${name}</span><b>${value}</b><small>${more}</small></div>`
  return `<div class="tiles">${figures.map(tile).join('')}</div>`
}

const MAX_ROWS = 100

function findingsOf({ findings }: Report): string {
  if (findings.length === 0) return ''
  const rows = findings
    .slice(0, MAX_ROWS)
    .map(
      ({ invariant, subject, sentence }) =>
        `<tr><th>${invariant}</th><td>${escapeText(subject)}</td><td>${escapeText(sentence)}</td></tr>`,
    )
  const more = findings.length - MAX_ROWS
  const rest = more > 0 ? `<p>and ${more} more</p>` : ''
  return `<section><h2>Violations</h2><table>${rows.join('')}</table>${rest}</section>`
}

const MORE = {
  history:
    'every acknowledged request has its effect, and every effect has a request; a key has one response; the ledger explains every balance that a customer was shown',
  hold: 'a process that is frozen or dead holds no transaction open and no relay lane leased for longer than ten seconds',
  process: 'no service and no server exits by itself',
  rest: 'all replicas are ready within a minute after the last fault, and no unfinished work is left a minute after the last customers',
} as const

function invariantsOf({ checked, findings }: Report): string {
  const rows = Object.entries({ ...INVARIANTS, ...MORE }).map(([name, sentence]) => {
    const found = findings.filter(({ invariant }) => invariant === name).length
    const extent = Object.entries(checked)
      .filter(([what]) => what.startsWith(`${name} `))
      .map(([what, count]) => `${number(count)} ${what.slice(name.length + 1)}`)
    const result =
      found === 0 ? '<td class="ok">holds</td>' : `<td class="bad">${violations(found)}</td>`
    return `<tr><th>${name}</th><td>${sentence}</td>${result}<td class="extent">${extent.join(', ')}</td></tr>`
  })
  return `<section><h2>What was checked</h2><table>${rows.join('\n')}</table></section>`
}

const violations = (count: number) => `${number(count)} violation${count === 1 ? '' : 's'}`
const number = (value: number) => value.toLocaleString('en')
const duration = (ms: number) =>
  ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`

const STYLE = `
${CHART_STYLE}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 40px; }
header { display: flex; justify-content: space-between; align-items: start; gap: 24px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 15px; margin: 0 0 6px; }
p { margin: 0; color: var(--soft); max-width: 88ch; }
.verdict { font-weight: 650; padding: 6px 16px; border-radius: 99px; color: #fff; }
.verdict.clean { background: light-dark(#1f8a55, #23784e); } .verdict.violated { background: light-dark(#c93636, #b63a36); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin: 22px 0 14px; }
.tile, section { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; }
.tile { padding: 12px 16px; display: flex; flex-direction: column; }
.tile span, .tile small, footer, .extent { color: var(--soft); }
.tile b { font-size: 24px; font-weight: 620; font-variant-numeric: tabular-nums; }
.tile small { font-size: 12.5px; line-height: 1.35; }
section { padding: 14px 16px 8px; margin-bottom: 12px; }
.legend { font-weight: 400; color: var(--soft); font-size: 13px; margin-left: 10px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin: 0 5px 0 10px; vertical-align: -1px; }
svg { display: block; width: 100%; height: auto; }
.killed { background: var(--killed); } .frozen { background: var(--frozen); } .clock { background: var(--clock); }
.network { background: var(--network); } .full { background: var(--full); } .lost { background: var(--killed); }
i.median { background: var(--median); } i.tail { background: var(--tail); }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { text-align: left; padding: 5px 14px 5px 0; vertical-align: top; border-top: 1px solid var(--grid); }
tr:first-child > * { border-top: 0; }
.ok { color: var(--ok); font-weight: 600; white-space: nowrap; } .bad { color: var(--killed); font-weight: 600; white-space: nowrap; }
footer { font-size: 13px; margin-top: 16px; } code { font-size: 12.5px; }
`
