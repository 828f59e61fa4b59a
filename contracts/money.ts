/**
 * Requests and responses contain money as a JSON number with at most two decimals. All code computes with a
 * bigint of minor units (hundredths), never with the floating-point number.
 */

/** The largest amount that is accepted: one billion units. */
export const MAX_AMOUNT_MINOR = 100_000_000_000n

/**
 * The largest balance. Up to this value, two amounts that differ by a hundredth are different JSON numbers.
 */
export const MAX_BALANCE_MINOR = 1_000_000_000_000_000n

/**
 * Reads a positive amount in units, as a number or as decimal text. Returns minor units, or what is wrong
 * with the amount, such as "must be greater than zero".
 */
export function parseAmount(value: number | string): bigint | string {
  const parts = /^(\d{1,16})(?:\.(\d+))?$/.exec(String(value))
  if (parts === null) return rejectionOf(value)
  const [, units = '0', decimals = ''] = parts
  if (decimals.length > 2) return 'must have at most two decimals'
  const minor = BigInt(units) * 100n + BigInt(decimals.padEnd(2, '0'))
  if (minor === 0n) return 'must be greater than zero'
  if (minor > MAX_AMOUNT_MINOR) return `must be at most ${toUnits(MAX_AMOUNT_MINOR)}`
  return minor
}

function rejectionOf(value: number | string): string {
  const number = typeof value === 'number' ? value : Number(value)
  if (number <= 0) return 'must be greater than zero'
  if (number >= 1e16) return `must be at most ${toUnits(MAX_AMOUNT_MINOR)}`
  // JavaScript prints a number below 1e-6 with an exponent, so the pattern above does not match it.
  if (typeof value === 'number' && number < 1) return 'must have at most two decimals'
  return 'must be a decimal number'
}

/**
 * Converts an amount in units that was validated before into minor units. Throws a RangeError if the amount
 * is invalid.
 */
export function toMinor(units: number): bigint {
  const minor = parseAmount(units)
  if (typeof minor === 'string') throw new RangeError(`${units} ${minor}`)
  return minor
}

/** Converts minor units into the JSON number of an amount or balance. Exact up to MAX_BALANCE_MINOR. */
export function toUnits(minor: bigint): number {
  return Number(minor) / 100
}
