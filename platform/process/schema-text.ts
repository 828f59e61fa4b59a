/**
 * Conversions between schemas and text: `expectedText` describes a schema in words that follow "must be", and
 * `fromText` reads a value from text in a URL, a header or the environment.
 */

/** The members of a JSON schema that this module reads. */
export interface PlainSchema {
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly anyOf?: readonly PlainSchema[]
  readonly properties?: Readonly<Record<string, PlainSchema>>
  readonly items?: PlainSchema
  readonly format?: string
  /** A description of the format, used in messages instead of the format's name. */
  readonly expected?: string
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly exclusiveMaximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly minItems?: number
  readonly maxItems?: number
  readonly default?: unknown
  readonly description?: string
  readonly secret?: boolean
}

export function expectedText(schema: PlainSchema): string {
  if (schema.const !== undefined) return String(schema.const)
  if (schema.enum) return `one of ${schema.enum.join(', ')}`
  if (schema.anyOf?.every((one) => one.const !== undefined)) {
    return `one of ${schema.anyOf.map((one) => one.const).join(', ')}`
  }
  if (schema.anyOf) return schema.anyOf.map(expectedText).join(' or ')
  switch (schema.type) {
    case 'integer':
      return `an integer${bounds(schema)}`
    case 'number':
      return `a number${bounds(schema)}`
    case 'boolean':
      return 'true or false'
    case 'string':
      return stringText(schema)
    case 'array':
      return `a list${span(schema.minItems, schema.maxItems, 'items')}`
    case undefined:
      return 'a value of another type'
    default:
      return schema.type === 'null' ? 'null' : `an ${schema.type}`
  }
}

function stringText({ format, pattern, minLength, maxLength, expected }: PlainSchema): string {
  if (expected !== undefined) return expected
  if (format === 'uuid') return 'a UUID'
  const size = span(minLength, maxLength, 'characters')
  // Unicode before the @ would require SMTPUTF8 on every mail server on the route, and few servers support
  // it.
  if (format === 'email') return `an ASCII email address${size}, with its domain in xn-- form`
  if (format) return `text in the format ${format}${size}`
  return pattern ? `text that matches ${pattern}${size}` : `text${size}`
}

function span(least: number | undefined, most: number | undefined, unit: string): string {
  if (least !== undefined && most !== undefined) return ` of ${least} to ${most} ${unit}`
  if (least !== undefined) return ` of at least ${least} ${unit}`
  return most === undefined ? '' : ` of at most ${most} ${unit}`
}

function bounds(schema: PlainSchema): string {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema
  if (minimum !== undefined && maximum !== undefined) return ` from ${minimum} to ${maximum}`
  const limits = [
    minimum === undefined ? '' : ` of at least ${minimum}`,
    exclusiveMinimum === undefined ? '' : ` greater than ${exclusiveMinimum}`,
    maximum === undefined ? '' : ` of at most ${maximum}`,
    exclusiveMaximum === undefined ? '' : ` less than ${exclusiveMaximum}`,
  ]
  return limits.filter((limit) => limit !== '').join(' and')
}

/** A decimal number with up to 15 digits. A number with more digits would be rounded silently. */
const PLAIN_NUMBER = /^-?(?=(?:\.?\d){1,15}$)\d+(?:\.\d+)?$/
const BOOLEANS: Readonly<Record<string, boolean>> = { true: true, 1: true, false: false, 0: false }

/**
 * Converts text to the number or boolean that its schema requires. Text that is not a plain decimal number, or
 * not one of true, false, 1 and 0, stays text, which the schema then rejects.
 */
export function fromText(schema: PlainSchema, text: string): unknown {
  if (schema.type === 'integer' || schema.type === 'number') {
    return PLAIN_NUMBER.test(text) ? Number(text) : text
  }
  if (schema.type === 'boolean' && Object.hasOwn(BOOLEANS, text)) return BOOLEANS[text]
  return text
}
