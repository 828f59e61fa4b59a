import { isAtLeast, type Outcome, threeDigits } from './contest.ts'

/** The outcomes as a table for the console. */
export function tableOf(outcomes: readonly Outcome[]): string {
  return inColumns(rowsOf(outcomes))
}

export function inColumns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (row: readonly string[]) =>
    row.map((cell, at) => cell.padEnd(widths[at]!)).join('  ')
  return rows.map((row) => line(row).trimEnd()).join('\n')
}

const HEAD = ['name', 'ratio (min – max)', 'reach', 'aim', 'ours', 'reference', 'reached']

function rowsOf(outcomes: readonly Outcome[]): string[][] {
  const rows = outcomes.map((outcome) => {
    const { name, ratio, reach, aim, figures, unit, lessIsBetter } = outcome
    const mark = (value: number) => `${lessIsBetter ? '≤' : '≥'} ${value}`
    const spread = `${threeDigits(ratio.median)} (${threeDigits(ratio.min)} – ${threeDigits(ratio.max)})`
    const [ours, reference] = [figures.ours, figures.reference].map(({ median }) =>
      threeDigits(median),
    )
    const reached = isAtLeast(outcome, aim) ? 'aim' : isAtLeast(outcome, reach) ? 'yes' : 'no'
    return [
      name,
      spread,
      mark(reach),
      mark(aim),
      `${ours} ${unit}`,
      `${reference} ${unit}`,
      reached,
    ]
  })
  return [HEAD, ...rows]
}

/** CPU milliseconds per order and other observations of our side, one line for each benchmark that has any. */
export function costLines(outcomes: readonly Outcome[]): string {
  return outcomes
    .filter(({ costs }) => Object.keys(costs).length > 0)
    .map(({ name, costs }) => {
      const parts = Object.entries(costs).map(([part, value]) => `${part} ${threeDigits(value)}`)
      return `${name}: ${parts.join(', ')}`
    })
    .join('\n')
}

export interface Circumstances {
  readonly date: string
  readonly machine: string
  readonly seconds: number
}

/** The outcomes as a Markdown table, followed by descriptions of both sides and by the costs. */
export function sectionOf(outcomes: readonly Outcome[], at: Circumstances): string {
  const compared = outcomes.map(
    ({ name, ours, reference }) => `- **${name}**: ${ours}; against ${reference}.`,
  )
  const costs = costLines(outcomes)
    .split('\n')
    .filter(Boolean)
    .map((line) => `- ${line}`)
  return [
    `Measured on ${at.date}: ${at.machine}; runs of ${at.seconds} s each, in turn.`,
    markdownTable(rowsOf(outcomes)),
    compared.join('\n'),
    ...(costs.length > 0
      ? [
          'Further figures are CPU milliseconds per order unless another unit is given. `all` is all processes; ' +
            '`load` is the load generator, which `all` does not include:',
          costs.join('\n'),
        ]
      : []),
  ].join('\n\n')
}

export function markdownTable(rows: readonly (readonly string[])[]): string {
  const [head, ...rest] = rows.map((cells) => `| ${cells.join(' | ')} |`)
  return [head, `|${'---|'.repeat(rows[0]!.length)}`, ...rest].join('\n')
}

/** The text with the part between the two comments of that name replaced; throws if they are missing. */
export function withSection(text: string, name: string, section: string): string {
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`there is no ${begin} … ${end}`)
  return `${text.slice(0, from + begin.length)}\n${section}\n${text.slice(to)}`
}

const WIDTH = 720
const LEFT = 40
const RIGHT = WIDTH - 40
const LINE_Y = 70

/** An SVG picture of a ratio: its spread over the rounds, its median, and its two marks on a line. */
export function pictureOf(outcome: Outcome): string {
  const { name, ours, reference, ratio, reach, aim } = outcome
  const most = Math.max(ratio.max, reach, aim, 1) * 1.1
  const x = (value: number) => (LEFT + (value / most) * (RIGHT - LEFT)).toFixed(1)
  const mark = (value: number, label: string, y: number) =>
    `<line x1="${x(value)}" y1="${LINE_Y - 16}" x2="${x(value)}" y2="${LINE_Y + 16}" class="mark"/>` +
    `<text x="${x(value)}" y="${y}" text-anchor="middle">${label} ${value}</text>`
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} 150" role="img">`,
    `<title>${escaped(name)}: ${threeDigits(ratio.median)}</title>`,
    `<style>${STYLE}</style>`,
    `<rect width="${WIDTH}" height="150" class="page"/>`,
    `<text x="${LEFT}" y="26" class="name">${escaped(name)} ${threeDigits(ratio.median)}</text>`,
    `<line x1="${LEFT}" y1="${LINE_Y}" x2="${RIGHT}" y2="${LINE_Y}" class="axis"/>`,
    mark(reach, 'reach', LINE_Y - 22),
    mark(aim, 'aim', LINE_Y + 30),
    `<line x1="${x(ratio.min)}" y1="${LINE_Y}" x2="${x(ratio.max)}" y2="${LINE_Y}" class="spread"/>`,
    `<circle cx="${x(ratio.median)}" cy="${LINE_Y}" r="7" class="median"/>`,
    `<text x="${LEFT}" y="124">${escaped(ours)}</text>`,
    `<text x="${LEFT}" y="140">against ${escaped(reference)}</text>`,
    '</svg>\n',
  ].join('\n')
}

const STYLE = [
  'text { font: 12px sans-serif; fill: #333 }',
  '.page { fill: #fff }',
  '.name { font-size: 16px; font-weight: bold }',
  '.axis { stroke: #ccc }',
  '.mark { stroke: #888; stroke-dasharray: 3 3 }',
  '.spread { stroke: #1f6feb; stroke-width: 6; stroke-linecap: round }',
  '.median { fill: #0b3d91 }',
].join(' ')

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
