/**
 * Money enters and leaves as a JSON number with at most two decimals and lives as a bigint of minor
 * units (hundredths). Nothing here or elsewhere computes with the floating-point form.
 */

/** The largest single amount that is accepted: one thousand million units. */
export const MAX_AMOUNT_MINOR = 100_000_000_000n

/** The largest balance: below it, adjacent hundredths are still distinct JSON numbers. */
export const MAX_BALANCE_MINOR = 1_000_000_000_000_000n

/**
 * Reads a positive amount in units from its shortest decimal text (`String(number)` or a query
 * parameter) and returns minor units, or the sentence that says why it is refused.
 */
export function parseAmount(value: number | string): bigint | string {
  const parts = /^(\d{1,16})(?:\.(\d+))?$/.exec(String(value))
  if (parts === null) return notPlain(value)
  const [, units = '0', decimals = ''] = parts
  if (decimals.length > 2) return 'must have at most two decimals'
  const minor = BigInt(units) * 100n + BigInt(decimals.padEnd(2, '0'))
  if (minor === 0n) return 'must be greater than zero'
  if (minor > MAX_AMOUNT_MINOR) return `must be at most ${toUnits(MAX_AMOUNT_MINOR)}`
  return minor
}

function notPlain(value: number | string): string {
  const number = typeof value === 'number' ? value : Number(value)
  if (number <= 0) return 'must be greater than zero'
  if (number >= 1e16) return `must be at most ${toUnits(MAX_AMOUNT_MINOR)}`
  // A number prints with an exponent below 1e-6; a text that is not plain is simply not one.
  if (typeof value === 'number' && number < 1) return 'must have at most two decimals'
  return 'must be a decimal number'
}

/** Minor units of an amount that a schema has already accepted. */
export function toMinor(units: number): bigint {
  const minor = parseAmount(units)
  if (typeof minor === 'string') throw new RangeError(`${units} ${minor}`)
  return minor
}

/** The JSON number of an amount or balance; exact for everything up to MAX_BALANCE_MINOR. */
export function toUnits(minor: bigint): number {
  return Number(minor) / 100
}
