const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/**
 * Parsed input in which every UUID is in lower case, the form that RFC 9562 writes and the
 * database returns: so two spellings of one id are one key everywhere.
 */
export function lowerUuids<T>(input: T): T {
  if (typeof input === 'string') return lowerUuid(input) as T
  if (Array.isArray(input)) return input.map(lowerUuids) as T
  if (input === null || typeof input !== 'object') return input
  let isChanged = false
  const entries = Object.entries(input).map(([name, value]) => {
    const lowered = lowerUuids(value)
    isChanged ||= lowered !== value
    return [name, lowered]
  })
  return isChanged ? (Object.fromEntries(entries) as T) : input
}

const lowerUuid = (text: string) => (isUuid(text) ? text.toLowerCase() : text)

export const isUuid = (text: string) => text.length === 36 && UUID.test(text)
