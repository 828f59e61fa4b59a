import { inShort, type Outcome } from './contest.ts'

/** How the outcomes are shown: a table for people, a list for programs, a picture of each. */
export function tableOf(outcomes: readonly Outcome[]): string {
  const head = ['name', 'ratio (min – max)', 'reach', 'aim', 'ours', 'reference', '']
  const rows = outcomes.map((outcome) => {
    const { name, ratio, reach, aim, figures, unit } = outcome
    const spread = `${inShort(ratio.median)} (${inShort(ratio.min)} – ${inShort(ratio.max)})`
    const [ours, reference] = [figures.ours, figures.reference].map(({ median }) => inShort(median))
    const verdict = isAtLeast(outcome, aim) ? 'aim' : isAtLeast(outcome, reach) ? 'reach' : 'short'
    return [name, spread, String(reach), String(aim), `${ours} ${unit}`, `${reference}`, verdict]
  })
  const widths = head.map((_, column) =>
    Math.max(...[head, ...rows].map((row) => row[column]!.length)),
  )
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd()
  return [line(head), ...rows.map(line)].join('\n')
}

/** CPU milliseconds per order, where they were measured. */
export function costLines(outcomes: readonly Outcome[]): string {
  return outcomes
    .filter(({ costs }) => Object.keys(costs).length > 0)
    .map(({ name, costs }) => {
      const parts = Object.entries(costs).map(([part, ms]) => `${part} ${inShort(ms)}`)
      return `${name}: CPU ms per order: ${parts.join(', ')}`
    })
    .join('\n')
}

/** Whether the median is as good as the mark, or better. */
export function isAtLeast({ ratio, lessIsBetter }: Outcome, mark: number): boolean {
  return lessIsBetter ? ratio.median <= mark : ratio.median >= mark
}

/** The machine of a CI is not quiet: only what is far below its mark is a finding there. */
export function isFarShort(outcome: Outcome): boolean {
  return !isAtLeast(outcome, outcome.lessIsBetter ? outcome.reach * 2 : outcome.reach / 2)
}
