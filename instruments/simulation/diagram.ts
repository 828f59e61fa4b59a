import type { Arrow, Column } from './world/story.ts'

const COLUMNS: readonly Column[] = ['customer', 'order', 'billing', 'notification', 'broker']
const WIDTH = 20
const MARGIN = 12

/** A run as a sequence diagram in text; times are in milliseconds since the start. */
export function diagramOf(arrows: readonly Arrow[]): string {
  const head = `${''.padEnd(MARGIN)}${COLUMNS.map((name) => name.padEnd(WIDTH)).join('')}`
  return [head.trimEnd(), ...arrows.map(lineOf)].join('\n')
}

function lineOf({ timeMs, from, to, text }: Arrow): string {
  const time = timeMs.toFixed(1).padStart(MARGIN - 4)
  const [start, end] = [COLUMNS.indexOf(from), COLUMNS.indexOf(to)]
  const lanes = COLUMNS.map((_, column) => laneOf(column, start, end)).join('')
  return `${time}    ${lanes} ${text}`.trimEnd()
}

function laneOf(column: number, start: number, end: number): string {
  if (start === end) return `${column === start ? '*' : '|'}${' '.repeat(WIDTH - 1)}`
  const [left, right] = [Math.min(start, end), Math.max(start, end)]
  const dash = '-'.repeat(WIDTH - 1)
  if (column === left) return start < end ? `+${dash}` : `<${dash}`
  if (column === right) return `${start < end ? '>' : '+'}${' '.repeat(WIDTH - 1)}`
  if (column > left && column < right) return `${'-'.repeat(WIDTH)}`
  return `|${' '.repeat(WIDTH - 1)}`
}
