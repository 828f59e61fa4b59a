/**
 * The header with the payment deadline of an order, in RFC 3339 and UTC, by the clock of the order service's
 * database.
 */
export const DEADLINE_HEADER = 'x-deadline'

export const deadlineHeader = (deadlineMs: number): string => new Date(deadlineMs).toISOString()

/** Returns epoch milliseconds, or undefined if the header is missing or is not a valid time. */
export function parseDeadline(header: string | undefined): number | undefined {
  if (header === undefined || !RFC_3339.test(header)) return undefined
  const deadlineMs = Date.parse(header)
  return Number.isNaN(deadlineMs) ? undefined : deadlineMs
}

const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/
