/**
 * The building blocks of the pictures. A picture is one SVG file for both light and dark mode: its colors are
 * classes that follow the reader's preference, and it has its own background. Text is kept as text. Lengths
 * are in pixels.
 */
export interface Picture {
  readonly width: number
  readonly height: number
  readonly title: string
  /** Describes the picture for readers who cannot see it. */
  readonly description: string
  readonly body: readonly string[]
}

export function svg({ width, height, title, description, body }: Picture): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title desc">
<title id="title">${escaped(title)}</title>
<desc id="desc">${escaped(description)}</desc>
<style>
${STYLE}
</style>
<defs>
${HEADS}
</defs>
<rect class="ground" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="10"/>
${body.join('\n')}
</svg>
`
}

export type Tone = 'call' | 'message' | 'quiet' | 'bad' | 'letter'

interface Line {
  readonly from: readonly [x: number, y: number]
  readonly to: readonly [x: number, y: number]
  readonly tone: Tone
  readonly dashed?: boolean
}

export function arrow({ from: [x1, y1], to: [x2, y2], tone, dashed = false }: Line): string {
  const dash = dashed ? ' dashed' : ''
  return `<line class="line ${tone}${dash}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" marker-end="url(#${tone})"/>`
}

export interface Words {
  readonly at: readonly [x: number, y: number]
  readonly anchor?: 'start' | 'middle' | 'end'
  /** Classes of the style sheet below. */
  readonly look: string
}

export function words(text: string, { at: [x, y], anchor = 'start', look }: Words): string {
  return `<text class="${look}" x="${x}" y="${y}" text-anchor="${anchor}">${escaped(text)}</text>`
}

export function box(
  [x, y]: readonly [number, number],
  [width, height]: readonly [number, number],
  look: string,
  radius = 6,
): string {
  return `<rect class="${look}" x="${x}" y="${y}" width="${width}" height="${height}" rx="${radius}"/>`
}

/** The approximate width of text of the class `code`. */
export const codeWidth = (text: string, size = 12): number => Math.ceil(text.length * size * 0.61)

export const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

const TONES: readonly Tone[] = ['call', 'message', 'quiet', 'bad', 'letter']

const HEADS = TONES.map(
  (tone) =>
    `<marker id="${tone}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path class="head ${tone}" d="M1 1 9 5 1 9Z"/></marker>`,
).join('\n')

const STYLE = `svg { --ground: #fff; --edge: #d1d9e0; --ink: #1f2328; --soft: #59636e; --faint: #c8cfd6; --panel: #f6f8fa;
  --call: #0969da; --message: #8250df; --message-ground: #fbefff; --good: #1a7f37; --bad: #cf222e; --letter: #9a6700; --wait: #ddf4ff; }
@media (prefers-color-scheme: dark) {
  svg { --ground: #0d1117; --edge: #3d444d; --ink: #f0f6fc; --soft: #9198a1; --faint: #3d444d; --panel: #151b23;
    --call: #4493f8; --message: #ab7df8; --message-ground: #211830; --good: #3fb950; --bad: #f85149; --letter: #d29922; --wait: #10233d; }
}
text { font: 13px system-ui, -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: var(--ink); }
.code, .topic { font: 12px ui-monospace, SFMono-Regular, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
.strong { font-weight: 600; }
.heading { font-size: 15px; font-weight: 600; }
.soft { fill: var(--soft); font-size: 12px; }
.small { font-size: 11px; }
.good { fill: var(--good); font-weight: 600; font-size: 12px; }
.bad-text { fill: var(--bad); font-weight: 600; }
.message-text, .topic { fill: var(--message); }
.halo { paint-order: stroke; stroke: var(--ground); stroke-width: 5px; stroke-linejoin: round; }
.ground { fill: var(--ground); stroke: var(--edge); }
.panel { fill: var(--panel); stroke: var(--edge); }
.service { fill: var(--ground); stroke: var(--soft); stroke-width: 1.5; }
.pill { fill: var(--message-ground); stroke: var(--message); }
.life { stroke: var(--faint); stroke-width: 1.5; }
.gone { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 2 5; }
.rule { stroke: var(--soft); stroke-dasharray: 2 4; }
.active { fill: var(--panel); stroke: var(--soft); }
.wait { fill: var(--wait); stroke: var(--call); }
.commit { fill: var(--good); stroke: var(--ground); stroke-width: 2; }
.store { fill: var(--ground); stroke: var(--good); stroke-width: 1.5; }
.line { stroke-width: 1.6; fill: none; }
.dashed { stroke-dasharray: 5 4; }
${TONES.map((tone) => `.line.${tone} { stroke: var(--${ink(tone)}); } .head.${tone} { fill: var(--${ink(tone)}); }`).join('\n')}`

function ink(tone: Tone): string {
  return tone === 'quiet' ? 'soft' : tone
}
