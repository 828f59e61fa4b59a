import { styleText } from 'node:util'
import { STYLES } from '../../contracts/style.ts'
import type { ByStyle } from './by-style.ts'
import { PROMISES } from './promises.ts'

/**
 * Prints what the customer saw, with a column for each style, and collects the promises that were not kept.
 */
export interface Table {
  scene(title: string): void
  heading(text: string): void
  /** Prints rows of cells, each compared with its promise. All styles must have the same labels. */
  rows(cells: ByStyle<Readonly<Record<string, Cell>>>): void
  /** Prints rows of plain text, with the label in the first row. */
  columns(label: string, texts: ByStyle<readonly string[]>): void
  /** Prints the verdict, and returns whether every promise was kept. */
  conclude(responseMs: ByStyle<number>, seconds: string): boolean
}

export interface Cell {
  readonly seen: string
  /** The values that count as keeping the promise. */
  readonly promised: readonly string[]
  /** A text that is printed at the right edge of the cell, such as a duration. */
  readonly note: string
}

export function cell(
  seen: unknown,
  promised: string | readonly string[],
  durationMs?: number,
): Cell {
  const note = durationMs === undefined ? '' : `${Math.round(durationMs)} ms`
  return { seen: String(seen), promised: [promised].flat(), note }
}

const LABEL_WIDTH = 25
const COLUMN_WIDTH = 25
const RULE = '─'.repeat(98)

export function createTable(): Table {
  const broken: string[] = []
  let compared = 0
  let scene = ''

  function compare(style: string, label: string, { seen, promised, note }: Cell): string {
    compared += 1
    const isKept = promised.includes(seen)
    if (!isKept) {
      broken.push(`${scene}: ${label}, ${style}: promised ${promised.join(' or ')}, seen ${seen}`)
    }
    const text = isKept ? `✓ ${seen}` : `✗ ${seen}, not ${promised[0]}`
    return styleText(isKept ? 'green' : 'red', text.slice(0, 1)) + fit(text.slice(1), note)
  }

  return {
    scene(title) {
      scene = title
      const names = STYLES.map((style) => style.padEnd(COLUMN_WIDTH)).join('')
      console.log(`\n${styleText('bold', title)}\n${styleText('dim', RULE)}`)
      console.log(`${' '.repeat(LABEL_WIDTH)}${styleText('bold', names.trimEnd())}`)
    },
    heading(text) {
      console.log(styleText('cyan', text))
    },
    rows(cells) {
      for (const label of Object.keys(cells.http)) {
        const texts = STYLES.map((style) => compare(style, label, cells[style][label]!))
        console.log(line(label, texts))
      }
    },
    columns(label, texts) {
      const height = Math.max(...STYLES.map((style) => texts[style].length))
      for (let row = 0; row < height; row += 1) {
        const cells = STYLES.map((style) => texts[style][row] ?? '')
        console.log(line(row === 0 ? label : '', cells.map(highlighted)))
      }
    },
    conclude(responseMs, seconds) {
      console.log(`\n${styleText('bold', 'In short')}: the response to an order ...`)
      for (const style of STYLES) {
        const duration = `${Math.round(responseMs[style])} ms`.padStart(8)
        console.log(`  ${style.padEnd(8)}${duration}   ${PROMISES[style].inShort}`)
      }
      console.log(`\n${verdict(broken, compared, seconds)}`)
      return broken.length === 0
    },
  }
}

function verdict(broken: readonly string[], compared: number, seconds: string): string {
  if (broken.length === 0) {
    const text = `✓ All ${compared} promises were kept, in ${seconds} s.`
    return styleText(['bold', 'green'], text)
  }
  const text = `✗ ${broken.length} of ${compared} promises were not kept:`
  return [styleText(['bold', 'red'], text), ...broken.map((one) => `  ${one}`)].join('\n')
}

const line = (label: string, cells: readonly string[]) =>
  `  ${label.padEnd(LABEL_WIDTH - 2)}${cells.join('')}`.trimEnd()

/** Aligns the text to the left and the note to the right, within the width of a column without its mark. */
function fit(text: string, note: string): string {
  const width = COLUMN_WIDTH - 2
  const room = note === '' ? width : width - note.length - 2
  const shown = text.length > room ? `${text.slice(0, room - 1)}…` : text
  const gap = note === '' ? '' : ' '
  return `${shown.padEnd(width - note.length - gap.length)}${note && styleText('dim', note)}${gap} `
}

/** Highlights the response in the timeline. */
function highlighted(text: string): string {
  const padded = text.padEnd(COLUMN_WIDTH)
  return text.endsWith('response') ? styleText('yellow', padded) : padded
}
