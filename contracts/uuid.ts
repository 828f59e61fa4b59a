const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/**
 * A copy of parsed input in which every UUID is in lower case, the form that RFC 9562 writes and the
 * database returns: so two spellings of one id are one key everywhere.
 */
export function lowerUuids<T>(input: T): T {
  if (typeof input === 'string') return (UUID.test(input) ? input.toLowerCase() : input) as T
  if (Array.isArray(input)) return input.map(lowerUuids) as T
  if (input === null || typeof input !== 'object') return input
  return Object.fromEntries(
    Object.entries(input).map(([name, value]) => [name, lowerUuids(value)]),
  ) as T
}
