/**
 * Encodes parameters and decodes results, all in PostgreSQL's text format. Both implementations of Database
 * use this module, so that they cannot differ.
 */

type Decode = (text: string) => unknown

/** Converts a parameter into text. Null and undefined become SQL's null, and a plain object becomes JSON. */
export function encodeValue(value: unknown): string | null {
  if (value === null || value === undefined) return null
  switch (typeof value) {
    case 'string':
      return value
    case 'object':
      if (Array.isArray(value)) return encodeArray(value)
      if (value instanceof Date) return value.toISOString()
      if (value instanceof Uint8Array) return `\\x${asBuffer(value).toString('hex')}`
      return JSON.stringify(value)
    default:
      return String(value)
  }
}

/**
 * The decoder for the type with this oid. Values of `numeric`, and of types that are not listed below, stay
 * text.
 */
export function decoderOf(oid: number): Decode {
  return decoders.get(oid) ?? asText
}

function encodeArray(items: readonly unknown[]): string {
  let text = ''
  for (const item of items) text += `${text === '' ? '{' : ','}${encodeItem(item)}`
  return text === '' ? '{}' : `${text}}`
}

function encodeItem(item: unknown): string {
  if (Array.isArray(item)) return encodeArray(item)
  const text = encodeValue(item)
  if (text === null) return 'NULL'
  return SPECIAL.test(text)
    ? // On text full of these characters, this is faster than replaceAll.
      `"${text.split('\\').join('\\\\').split('"').join('\\"')}"`
    : `"${text}"`
}

const SPECIAL = /["\\]/

/** Decodes a one-dimensional array, such as `{1,NULL,"a \"quoted\" one"}`. */
function decodeArray(text: string, decode: Decode): unknown[] {
  const items: unknown[] = []
  const item = /"((?:[^"\\]|\\.)*)"|[^,{}"]+/gsu
  for (const [bare, quoted] of text.matchAll(item)) {
    if (quoted !== undefined) items.push(decode(quoted.replace(/\\(.)/gsu, '$1')))
    else items.push(bare === 'NULL' ? null : decode(bare))
  }
  return items
}

/**
 * Converts `2026-01-31 12:00:00.123456+00` into ISO 8601 for Date, which drops everything below a
 * millisecond.
 */
function decodeTimestamptz(text: string): Date {
  const iso = text.replace(' ', 'T')
  return new Date(/[+-]\d\d$/.test(iso) ? `${iso}:00` : iso)
}

function decodeBytea(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.slice(2), 'hex'))
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function asText(text: string): string {
  return text
}

/**
 * For each type, its oid, the oid of its array type, and its decoder. The oids are from PostgreSQL's
 * pg_type.dat.
 */
const types: readonly (readonly [number, number, Decode])[] = [
  [16, 1000, (text) => text === 't'], // boolean
  [17, 1001, decodeBytea],
  [20, 1016, BigInt], // bigint
  [21, 1005, Number], // smallint
  [23, 1007, Number], // integer
  [25, 1009, asText], // text
  [26, 1028, Number], // oid
  [114, 199, (text) => JSON.parse(text)], // json
  [700, 1021, Number], // real
  [701, 1022, Number], // double precision
  [1043, 1015, asText], // varchar
  [1184, 1185, decodeTimestamptz],
  [1700, 1231, asText], // numeric
  [2950, 2951, asText], // uuid
  [3802, 3807, (text) => JSON.parse(text)], // jsonb
]

const decoders = new Map<number, Decode>(
  types.flatMap(([oid, arrayOid, decode]) => [
    [oid, decode],
    [arrayOid, (text: string) => decodeArray(text, decode)],
  ]),
)
