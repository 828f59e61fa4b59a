/** What alternating runs gave: every figure of the benchmark is such a spread of ratios. */
export interface Spread {
  readonly min: number
  readonly median: number
  readonly max: number
}

export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) throw new Error('a spread needs a value at least')
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const isOdd = sorted.length % 2 === 1
  const median = isOdd ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { min: sorted[0]!, median, max: sorted.at(-1)! }
}

/** The smallest value that so large a share (0 to 1) of the values does not exceed. */
export function percentile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new Error('a percentile needs a value at least')
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!
}
