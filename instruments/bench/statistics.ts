/** The spread of a figure over alternating runs. */
export interface Spread {
  readonly min: number
  readonly median: number
  readonly max: number
}

export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) throw new Error('a spread needs at least one value')
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const isOdd = sorted.length % 2 === 1
  const median = isOdd ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { min: sorted[0]!, median, max: sorted.at(-1)! }
}

/** The smallest of the values that at least the given share (0 to 1) of them does not exceed. */
export function percentile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new Error('a percentile needs at least one value')
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!
}
