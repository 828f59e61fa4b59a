const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/**
 * Returns the input with every UUID in lower case, as RFC 9562 specifies and as the database returns it. Ids
 * that differ only in case are therefore the same key everywhere.
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
